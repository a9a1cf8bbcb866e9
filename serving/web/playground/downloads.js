// The wall as a file: one picture of its images, or one array.

import { save } from "./elements.js";
import { GENERATE, bodyOf, fieldsOf, labelled } from "./requests.js";

const MOST = 256; // images: what a first look at the wall shows

/** @param {import("./app.js").App} app @param {string} name of the file
 * @param {Record<string, any>} more fields of the request */
export const saveWall = (app, name, more) =>
  app.guarded(async () => {
    const { state, model } = app;
    const { max_seeds, max_image_pixels } = model.limits;
    const most = Math.min(MOST, max_seeds, Math.floor(max_image_pixels / (model.image.width * model.image.height)));
    const seeds = app.wall.seeds.slice(0, most);
    const fields = { ...fieldsOf(state, model), ...labelled("labels", state, model), ...more };
    save(await (await app.api.post(GENERATE, bodyOf(seeds, fields))).blob(), name);
    app.tell(`${name} has the wall's first ${seeds.length} images.`);
  });

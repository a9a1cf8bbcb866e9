// @ts-check
// The page: its state is in the URL, each game is a View, the server does the rest.

import { forgetColours } from "./colours.js";
import { Controls, tidy } from "./controls.js";
import { Fate } from "./fate.js";
import { Film, savePng, save } from "./keep.js";
import { Pad } from "./pad.js";
import { View } from "./view.js";

/** @typedef {{[name: string]: string}} Query */

const SPEEDS = [0.5, 1, 2, 5, 10, 30, 100, 300, 0]; // rounds a second; 0: as fast as it goes
const PARAMETERS_OF_PAGE = ["lesson"];
/** @type {{[state: string]: string}} */
const STATES = {
  lost: "The connection is lost; trying again.",
  restarted: "The lab was started again: the game begins anew.",
  taken: "Another page has this game now. Change something to begin a new one.",
};

const at = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));

class Lab {
  /** @param {any} catalogue */
  constructor(catalogue) {
    this.catalogue = catalogue;
    /** @type {View[]} */
    this.views = [];
    /** @type {Query} */
    this.query = {};
    /** @type {Query} */
    this.differs = {};
    this.isPlaying = false;
    this.layers = new Set();
    /** What each game is to do and to show. @type {any} */
    this.wishes = {};
    this.controls = new Controls(at("form"), catalogue, (name, text) => this.edit(name, text));
    this.pad = new Pad(at("pad"), catalogue.maxDrawn, (packed) => this.edit("points", packed), (text) => this.tell(text));
    this.fate = new Fate(at("fate"), catalogue, () => history.replaceState(null, "", this.address()));
    this.bind();
    this.listLessons();
    this.read();
  }

  get isCompared() {
    return at("compare").checked;
  }

  /** Begins the games of the URL. */
  read() {
    const given = Object.fromEntries(new URLSearchParams(location.search));
    const lesson = this.catalogue.lessons.find((/** @type {any} */ each) => each.name === given.lesson);
    const part = (/** @type {string} */ prefix) =>
      Object.fromEntries(Object.entries(given).filter(([name]) => name.startsWith(prefix)).map(([name, text]) => [name.slice(prefix.length), text]));
    this.differs = part("b.");
    this.query = Object.fromEntries(Object.entries(given).filter(([name]) => !/^(b|fate)\./.test(name) && !PARAMETERS_OF_PAGE.includes(name)));
    at("compare").checked = Object.keys(this.differs).length > 0 || given.compare === "1";
    delete this.query.compare;
    this.fate.set(part("fate."));
    this.showLesson(lesson);
    this.begin();
  }

  /** @param {any} lesson */
  showLesson(lesson) {
    const box = at("lesson");
    this.lesson = lesson?.name;
    box.hidden = !lesson;
    box.replaceChildren();
    if (!lesson) return;
    box.appendChild(document.createElement("strong")).textContent = lesson.title;
    box.append(lesson.sentences.join(" "));
    if (lesson.name === "averages") this.setLayer("average", true);
  }

  /** Ends the games, and begins those that are wanted. */
  begin() {
    this.tell("");
    for (const view of this.views) view.close();
    this.views = [];
    const wishes = (/** @type {any} */ {
      layers: this.layers,
      spectra: at("spectra").checked,
      wantsPlay: this.isPlaying,
      speed: SPEEDS[at("speed").value],
      isSigned: (/** @type {string} */ name) => this.catalogue.signed.includes(name),
    });
    this.wishes = wishes;
    const add = (/** @type {string} */ name, /** @type {Query} */ query) =>
      this.views.push(new View(at("games"), name, tidy(this.catalogue, query), wishes, (view, event, detail) => this.happened(view, event, detail)));
    add("A", this.query);
    if (this.isCompared) add("B", { ...this.query, ...this.differs });
    at("games").classList.toggle("two", this.isCompared);
    if (at("spectra").checked) for (const view of this.views) view.showSpectra(true);
    this.show();
  }

  /** A parameter was changed on the form. @param {string} name @param {string} text */
  edit(name, text) {
    const before = { query: { ...this.query }, differs: { ...this.differs } };
    const own = this.isCompared && at("whose").querySelector(":checked").value === "b";
    if (own) {
      if (text === (this.query[name] ?? this.catalogue.fields[name].default)) delete this.differs[name];
      else this.differs[name] = text;
    } else this.query[name] = text;
    const whole = own ? { ...this.query, ...this.differs } : this.query;
    if (name === "data") {
      if (text === "drawn" && !whole.points) {
        this.show();
        return; // it begins when there are points
      }
      if (text !== "drawn") delete (own ? this.differs : this.query).points;
    }
    if (name === "points") (own ? this.differs : this.query).data = "drawn";
    this.before = before;
    this.controls.accept();
    this.tell("");
    this.apply();
  }

  apply() {
    const queries = [this.query, { ...this.query, ...this.differs }];
    this.views.forEach((view, i) => view.change(tidy(this.catalogue, queries[i])));
    this.show();
  }

  /** Writes form, URL and titles anew. */
  show() {
    const own = this.isCompared && at("whose").querySelector(":checked").value === "b";
    const shown = own ? { ...this.query, ...this.differs } : this.query;
    this.controls.show(shown, own ? this.differs : undefined);
    at("whose").hidden = !this.isCompared;
    at("pad").hidden = shown.data !== "drawn";
    if (shown.points && !this.pad.points.length) this.pad.unpack(shown.points);
    const said = Object.entries(this.differs).map(([name, text]) => `${this.catalogue.fields[name]?.label ?? name}: ${text || "none"}`);
    at("differs").hidden = !this.isCompared;
    at("differs").textContent = said.length ? `B differs in ${said.join("; ")}` : "B is the same game as A so far: choose “only B” and change something.";
    this.views.forEach((view, i) => {
      view.title.textContent = !this.isCompared ? "" : i ? `B: ${said.join("; ") || "the same"}` : "A";
    });
    history.replaceState(null, "", this.address());
  }

  address() {
    const search = new URLSearchParams();
    if (this.lesson) search.set("lesson", this.lesson);
    for (const [name, text] of Object.entries(tidy(this.catalogue, this.query))) search.set(name, text);
    if (this.isCompared) {
      for (const [name, text] of Object.entries(this.differs)) search.set(`b.${name}`, text);
      if (!Object.keys(this.differs).length) search.set("compare", "1");
    }
    for (const [name, text] of Object.entries(this.fate.query)) search.set(`fate.${name}`, text);
    return `${location.pathname}?${search}`;
  }

  /** @param {View} view @param {string} event @param {any} detail */
  happened(view, event, detail) {
    if (event === "refused") {
      const text = this.isCompared ? `${view.name}: ${detail.text}` : detail.text;
      if (!this.controls.refuse(detail.field, text)) this.tell(text);
      if (detail.of === "change" && this.before) {
        // The games go on as they were, and so does the link; the field keeps what was written.
        ({ query: this.query, differs: this.differs } = this.before);
        for (const each of this.views) each.query = each.connection.query = tidy(this.catalogue, each === this.views[0] ? this.query : { ...this.query, ...this.differs });
        if (this.isCompared) this.views.forEach((each) => each !== view && each.change(each.query));
        history.replaceState(null, "", this.address());
      }
    } else if (event === "state") {
      // Of a refusal the reason is said already, and stays.
      if (detail in STATES) this.tell(STATES[detail]);
      else if (Object.values(STATES).includes(at("message").textContent)) this.tell("");
    } else if (event === "frame" && view === this.views[0]) this.follow(detail);
    else if (event === "command") {
      at("commanded").hidden = false;
      at("command-text").textContent = detail.text;
      at("csv").hidden = !detail.csv;
      this.csv = detail.csv;
    }
  }

  /** The tools follow the first game. @param {any} head */
  follow(head) {
    if (this.isPlaying && this.views.every((view) => view.hasStopped)) this.setPlaying(false, false);
    const [first, last] = head.kept;
    const back = at("back");
    if (document.activeElement !== back) {
      back.min = first;
      back.max = Math.max(last, head.round);
      back.value = head.round;
      at("back-text").textContent = head.round;
    }
  }

  /** @param {boolean} on @param {boolean} [send] */
  setPlaying(on, send = true) {
    this.isPlaying = this.wishes.wantsPlay = on;
    at("play").textContent = on ? "Pause" : "Play";
    if (send) this.all({ do: on ? "play" : "pause" });
  }

  /** @param {{[name: string]: any}} message */
  all(message) {
    for (const view of this.views) view.send(message);
  }

  /** @param {string} text */
  tell(text) {
    at("message").hidden = !text;
    if (at("message").textContent !== text) at("message").textContent = text;
  }

  /** @param {string} name @param {boolean} on */
  setLayer(name, on) {
    if (on) this.layers.add(name);
    else this.layers.delete(name);
    /** @type {HTMLInputElement} */ (document.querySelector(`[data-layer=${name}]`)).checked = on;
    for (const view of this.views) view.redraw();
  }

  bind() {
    const step = (/** @type {string} */ who) => {
      this.setPlaying(false, false);
      this.all({ do: "step", who });
    };
    at("play").addEventListener("click", () => this.setPlaying(!this.isPlaying));
    at("step").addEventListener("click", () => step("both"));
    at("step-D").addEventListener("click", () => step("D"));
    at("step-G").addEventListener("click", () => step("G"));
    at("reset").addEventListener("click", () => this.all({ do: "reset" }));
    at("speed").addEventListener("input", () => {
      const rounds = SPEEDS[at("speed").value];
      at("speed-text").textContent = rounds ? `${rounds} rounds a second` : "as fast as it goes";
      this.wishes.speed = rounds;
      this.all({ do: "speed", rounds });
    });
    at("back").addEventListener("input", () => (at("back-text").textContent = at("back").value));
    at("back").addEventListener("change", () => {
      this.setPlaying(false, false);
      this.all({ do: "back", round: Number(at("back").value) });
      at("back").blur();
    });
    for (const box of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("[data-layer]"))) {
      const name = String(box.dataset.layer);
      if (box.checked) this.layers.add(name);
      box.addEventListener("change", () => this.setLayer(name, box.checked));
    }
    at("spectra").addEventListener("change", () => {
      this.wishes.spectra = at("spectra").checked;
      for (const view of this.views) view.showSpectra(at("spectra").checked);
    });
    at("compare").addEventListener("change", () => this.begin());
    at("whose").addEventListener("change", () => this.show());
    at("png").addEventListener("click", () => savePng(this.views));
    at("webp").addEventListener("click", () => this.record());
    at("command").addEventListener("click", () => this.views[0].send({ do: "command" }));
    at("csv").addEventListener("click", () => save(new Blob([this.csv ?? ""], { type: "text/csv" }), "points.csv"));
    at("link").addEventListener("click", async () => {
      // A page under another name than localhost's has a clipboard only over HTTPS.
      await navigator.clipboard?.writeText(location.href);
      at("kept").textContent = navigator.clipboard ? "Link copied." : "The link is in the address bar.";
    });
    document.addEventListener("keydown", (event) => {
      const from = /** @type {HTMLElement} */ (event.target);
      if (event.key !== " " || event.repeat || event.ctrlKey || event.metaKey || from.closest("input, select, button, a, summary, pre, textarea")) return;
      event.preventDefault();
      this.setPlaying(!this.isPlaying);
    });
    for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("input[name=theme]"))) {
      input.addEventListener("change", () => {
        document.documentElement.style.colorScheme = input.value;
        this.redraw();
      });
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    new ResizeObserver(() => this.redraw()).observe(at("games"));
    addEventListener("popstate", () => this.read());
    addEventListener("pagehide", () => this.views.forEach((view) => view.connection.close()));
    addEventListener("pageshow", (event) => event.persisted && this.begin());
  }

  redraw() {
    forgetColours();
    for (const view of this.views) view.redraw();
    this.fate.redraw();
    this.pad.draw();
  }

  async record() {
    if (this.film) {
      const film = this.film;
      this.film = undefined;
      at("webp").textContent = "Record WebP";
      at("kept").textContent = "";
      await film.end();
      return;
    }
    at("webp").textContent = "Save the recording";
    this.film = new Film(() => this.views, (num) => {
      at("kept").textContent = `${(num / 10).toFixed(1)} s recorded`;
      if (this.film?.isFull) this.record();
    });
  }

  listLessons() {
    const list = /** @type {HTMLElement} */ (at("lessons").querySelector("ol"));
    for (const lesson of this.catalogue.lessons) {
      const item = list.appendChild(document.createElement("li"));
      const link = item.appendChild(document.createElement("a"));
      link.href = `?${lesson.query}`;
      link.textContent = lesson.title;
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        history.pushState(null, "", link.href);
        this.setPlaying(true, false);
        this.read();
        document.querySelector("h1")?.scrollIntoView();
      });
      item.appendChild(document.createElement("p")).textContent = lesson.sentences.join(" ");
    }
  }
}

const reply = await fetch("lab.json");
const lab = new Lab(await reply.json());
Object.assign(window, { lab }); // for the tests and the benchmark

// Asks the server. All addresses are relative: a proxy may show the page under any path.

export class Refused extends Error {
  /** @param {number} status 0 where there was no answer. @param {string} detail
   * @param {number | null} [retryAfterS] */
  constructor(status, detail, retryAfterS = null) {
    super(detail);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same request may succeed in a while. */
  get passes() {
    return [0, 429, 502, 503, 504].includes(this.status);
  }
}

export class Api {
  constructor() {
    /** Kept in memory alone: it is gone with the page. */
    this.key = "";
  }

  /** @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} */
  async ask(path, options = {}) {
    const headers = { ...(this.key ? { Authorization: `Bearer ${this.key}` } : {}), ...options.headers };
    let reply;
    try {
      reply = await fetch(path, { ...options, headers });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Refused(0, "The server does not answer.");
    }
    if (reply.ok) return reply;
    const after = Number(reply.headers.get("retry-after") ?? NaN);
    throw new Refused(reply.status, await detailOf(reply), Number.isFinite(after) ? after : null);
  }

  /** @param {string} path */
  async json(path) {
    return (await this.ask(path)).json();
  }

  /** @param {string} path @param {string} body JSON, whose seeds may have 64 bits */
  post(path, body) {
    return this.ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  }

  /** Loads an image, so that it can be shown at once. An image's element can't send a key.
   * @param {string} path @returns {Promise<HTMLImageElement>} */
  async image(path) {
    const image = new Image();
    if (this.key) {
      image.src = URL.createObjectURL(await (await this.ask(path)).blob());
      image.dataset.owned = "1";
    } else image.src = path;
    try {
      await image.decode();
    } catch {
      await this.ask(path, { cache: "reload" }); // says why there is none
      throw new Refused(0, "The image could not be loaded.");
    }
    return image;
  }
}

/** @param {Response} reply */
async function detailOf(reply) {
  try {
    return (await reply.json()).detail ?? `Status ${reply.status}.`;
  } catch {
    return `Status ${reply.status}.`; // not a problem document, but a proxy's page
  }
}

/** Lets one piece of work run at a time, and only the newest wait: a slider asks for more images than
 * there are answers. Answers are shown in order, none after a newer one. */
export class Newest {
  constructor() {
    this.turn = 0;
    this.busy = false;
    /** @type {(() => Promise<void>) | null} */
    this.next = null;
  }

  /** What was asked for so far is not shown any more. */
  drop() {
    this.turn += 1;
    this.next = null;
  }

  /** @template T @param {() => Promise<T>} work @param {(found: T) => void} show
   * @param {(error: any) => void} fail */
  async run(work, show, fail) {
    const turn = this.turn;
    const one = async () => {
      try {
        const found = await work();
        if (turn === this.turn) show(found);
      } catch (error) {
        if (turn === this.turn && !this.next) fail(error);
      }
    };
    if (this.busy) {
      this.next = one;
      return;
    }
    this.busy = true;
    for (let each = /** @type {any} */ (one); each; ) {
      this.next = null;
      await each();
      each = this.next;
    }
    this.busy = false;
  }
}

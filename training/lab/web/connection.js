// @ts-check
// One game's connection. A dropped one is taken up again, with the game's key.

const FIRST_WAIT_MS = 250;
const MOST_WAIT_MS = 4000;
const REFUSED = 4000;
const TAKEN = 4002;

/** @typedef {{[name: string]: any}} Message */

export class Connection {
  /**
   * @param {{[name: string]: string}} query parameters of the game
   * @param {{message: (message: Message) => void, frame: (frame: Frame) => void,
   *          state: (state: string) => void}} on
   */
  constructor(query, on) {
    this.query = query;
    this.on = on;
    this.key = "";
    this.waitMs = FIRST_WAIT_MS;
    this.isClosed = false;
    /** @type {WebSocket | undefined} */
    this.socket = undefined;
    this.open();
  }

  open() {
    const address = new URL("game", location.href.split(/[?#]/)[0]);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify({ query: this.query, key: this.key }));
    socket.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) {
        this.on.frame(readFrame(data));
        return;
      }
      const message = JSON.parse(data);
      if (message.is === "connected") {
        const restarted = this.key !== "" && message.isNew;
        this.key = message.key;
        this.waitMs = FIRST_WAIT_MS;
        this.on.state(restarted ? "restarted" : "open");
      } else {
        this.on.message(message);
      }
    };
    socket.onclose = ({ code }) => {
      if (this.isClosed || socket !== this.socket) return;
      if (code === REFUSED || code === TAKEN) {
        this.on.state(code === TAKEN ? "taken" : "refused");
        return;
      }
      this.on.state("lost");
      this.timer = setTimeout(() => this.open(), this.waitMs);
      this.waitMs = Math.min(2 * this.waitMs, MOST_WAIT_MS);
    };
  }

  /** @param {Message} message */
  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
    this.socket?.close(1000);
  }
}

/** @typedef {{head: Message, arrays: {[name: string]: Float32Array}}} Frame */

/** @param {ArrayBuffer} data @returns {Frame} */
export function readFrame(data) {
  const view = new DataView(data);
  const length = view.getUint32(4, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, length)));
  let offset = 8 + length;
  /** @type {{[name: string]: Float32Array}} */
  const arrays = {};
  for (const [name, [size]] of Object.entries(head.arrays)) {
    arrays[name] = new Float32Array(data, offset, size);
    offset += 4 * size;
  }
  return { head, arrays };
}

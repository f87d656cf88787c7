// @ts-check
/**
 * Labs on a page without a kernel: the frames that `page.py` wrote into a file answer in its place.
 * How it is written is said there, at `pack`.
 */

import { attach, createLab, keyOf } from "./lab.js";

const FAILED = "The pictures of this lab could not be loaded. Load the page again.";
const NO_FRAMES = { find: () => undefined, press: () => undefined };

/** Bytes as they were before gzip; a server may have undone it on the way. */
async function unzip(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Read a file of frames: functions that find the frame of fields, and that of a button. */
async function readFrames(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  const bytes = await unzip(new Uint8Array(await answer.arrayBuffer()));
  const end = 4 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  const { table, frames, others, levels } = JSON.parse(new TextDecoder().decode(bytes.subarray(4, end)));
  const made = [];
  /** The value at a place of the table, made once, so that frames share what they have in common. */
  const value = (place) => (made[place] ??= build(table[place]));
  const build = (entry) => {
    if (Array.isArray(entry)) return entry.map(value);
    if (entry === null || typeof entry !== "object") return entry;
    return Object.fromEntries(Object.entries(entry).map(([name, place]) => [name, value(place)]));
  };
  const places = new Map(frames.map((frame, n) => [keyOf(value(table[frame].fields)), { n, note: "" }]));
  for (const [fields, n, note] of others) places.set(keyOf(value(fields)), { n, note });

  /** What a kernel would send of a frame. */
  const answerWith = (n, note = "") => {
    const frame = value(frames[n]);
    const wanted = frame.panels.flatMap(({ pixels, readout }) => (readout ? [...pixels, readout] : pixels));
    const digests = wanted.map(({ digest }) => digest);
    const buffers = digests.map((digest) => bytes.subarray(end + levels[digest][0], end + levels[digest][1]));
    return [{ note, frame, levels: digests }, buffers];
  };
  return {
    find: (fields) => {
      const place = places.get(keyOf(fields));
      return place && answerWith(place.n, place.note);
    },
    press: (name, fields) => {
      const place = places.get(keyOf(fields)); // none where a control was moved beyond them meanwhile
      const pressed = place && value(frames[place.n]).presses[name];
      return pressed === undefined ? undefined : answerWith(pressed);
    },
  };
}

/**
 * Put a lab in the place of its first frame.
 * @param {HTMLElement} el as `lab_as_html` in page.py makes it
 */
export function openLab(el) {
  const opening = JSON.parse(el.querySelector("script").textContent);
  const { frames: address } = el.dataset;
  let problem = el.querySelector(".gap-kernel span")?.textContent; // of what is not in the file
  let [files, loading, onMessage] = [null, null, (message, buffers) => {}];
  const questions = [];

  const send = (message) => (files ? answer(message) : questions.push(message));
  const listen = (listener) => (onMessage = listener);
  const lab = createLab(address ? { opening, waits: "Loading…", send, listen } : { opening });
  const place = el.querySelector(".gap-place");
  place.replaceChildren();
  attach(place, lab);
  return { lab, load: () => (loading ??= load()) };

  /** Fetch the frames, for which there is time until the lab comes into view. */
  async function load() {
    if (!address) return;
    files = await readFrames(address).catch((error) => {
      console.error(error); // for who looks into it; the reader gets a sentence
      problem = FAILED;
      return NO_FRAMES;
    });
    for (const message of questions.splice(0)) answer(message);
  }

  function answer({ ask, fields, press, missing, ahead }) {
    if (!fields) return; // whether there is a kernel still, or a piece of a file
    const began = performance.now();
    const found = press === undefined ? files.find(fields) : files.press(press, fields);
    if (missing && !found) onMessage({ ask, problem }, []);
    const next = ahead.map(files.find);
    [missing && found, ...next].forEach((one, place) => one && onMessage({ ask, place, ...one[0] }, one[1]));
    onMessage({ ask, done: (performance.now() - began) / (1 + next.length) }, []);
  }
}

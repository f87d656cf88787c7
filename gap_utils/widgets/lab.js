// @ts-check
/**
 * The front end of all labs: it makes the controls, shows frames, and fetches those that will
 * be needed next. It knows nothing of any lab: what a frame shows is made in Python.
 *
 * `createLab(host)` holds what is on view and the frames in store; `attach(el, lab)` puts it
 * on a page, as often as one likes; `mount(el, host)` does both.
 *
 * @typedef {Object<string, any>} Fields  what the controls show, by name
 * @typedef {{digest: string, shape: number[], box: number[], palette: string, opacity: number,
 *            smooth: boolean, levels?: Uint8Array}} Pixels
 * @typedef {{width: number, height: number, svg: string, pixels: Pixels[]}} Panel
 * @typedef {{fields: Fields, limits: Object<string, any>, panels: Panel[], words: string[],
 *            large: string, room: string[], verdict: string, text: string, note?: string,
 *            levels?: Object<string, any>}} Frame
 * @typedef {{kind: string, name: string, label: string, [more: string]: any}} Control
 * @typedef {{opening: {name: string, controls: Control[], palettes: Object<string, any>,
 *                      frames: Frame[]},
 *            send?: (message: Object<string, any>, buffers?: ArrayBuffer[]) => void,
 *            listen?: (onMessage: (message: any, buffers: any[]) => void,
 *                      onDoubt: () => void) => void,
 *            without?: string}} Host
 *     `send` and `listen` reach the kernel, and `send` throws where it is gone; a page without
 *     one says so in `without`.
 */

const FRAMES_IN_STORE = 16e6; // bytes
const LEVELS_IN_STORE = 8e6;
const SMALL_LEVELS = 4096; // bytes that the kernel sends each time
const PIECE = 1 << 20; // bytes of a file in one message; a server may refuse 10 MB
const FASTEST = 33; // milliseconds between two moves while a key is held
const SLOWEST = 100;
const AHEAD = { least: 2, most: 16 }; // frames
const SLOW_FRAME = 50; // milliseconds
const PATIENCE = 400; // milliseconds without an answer
const LONG_LIST = 60; // options; of more, one types a part of the name
const GONE = "The kernel behind this lab is gone. Run its cell again to go on.";

/** @type {(fields: Fields) => string} */
const keyOf = (fields) => JSON.stringify(Object.keys(fields).sort().map((name) => [name, fields[name]]));

/** @type {(value: number, low: number, high: number) => number} */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The place of a value among the options of a choice. */
const placeOf = ({ options }, value) =>
  options.findIndex((option) => JSON.stringify(option[1]) === JSON.stringify(value));

/** The place of a control's value among those that it can have. */
const rank = (control, value) => (control.kind === "choice" ? placeOf(control, value) : Number(value));

/** Bytes from what a kernel or a page may hold them in. */
function toBytes(data) {
  if (typeof data === "string") return Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Keep values by name, and forget those that were not used for longest when they are too large. */
function createStore(bound) {
  const kept = new Map();
  let total = 0;
  return {
    get(name) {
      const entry = kept.get(name);
      if (entry) kept.delete(name), kept.set(name, entry); // now the newest
      return entry?.value;
    },
    has: (name) => kept.has(name),
    put(name, value, size) {
      total += size - (kept.get(name)?.size ?? 0);
      kept.delete(name);
      kept.set(name, { value, size });
      for (const [oldest, entry] of kept) {
        if (total <= bound || oldest === name) break;
        kept.delete(oldest);
        total -= entry.size;
      }
    },
    entries: () => [...kept].map(([name, entry]) => [name, entry.value]),
  };
}

/**
 * What is on view, and what may be next.
 * @param {Host} host
 */
export function createLab(host) {
  const { opening } = host;
  const frames = createStore(FRAMES_IN_STORE);
  const levels = createStore(LEVELS_IN_STORE);
  const palettes = Object.fromEntries(
    Object.entries(opening.palettes).map(([name, table]) => [name, toBytes(table)]),
  );
  const views = new Set();
  const timing = { cycle: 30, frame: 0, interval: FASTEST, moved: 0 };
  /** @type {{control: Control, direction: number} | null} */
  let hand = null; // the control in use
  let tried = new Set(); // what was asked for ahead of need, so that it is asked for once
  let pending = null; // the question that is not answered yet; one at a time
  let told = ""; // what the kernel knows to be on view
  let upload = null; // a file on its way; no question comes between its pieces
  let asked = Math.floor(Math.random() * 1e9); // answers go to all pages that a kernel has
  /** @type {{press?: string, control?: Control, value?: any}[]} */
  let later = []; // what buttons say while a question is under way, and what was moved after that

  const lab = {
    opening,
    palettes,
    /** @type {Frame} */ frame: opening.frames[0],
    /** @type {Fields} */ wanted: opening.frames[0].fields,
    problem: "",
    waiting: false,
    gone: false,
    progress: 0,

    /** Go where a control points; after what the buttons pressed before it say. */
    move(control, value) {
      lab.problem = "";
      if (!pending?.press && !later.length) return go(control, value);
      if (later.at(-1)?.control === control) later.pop();
      later.push({ control, value });
      lab.wanted = { ...lab.wanted, [control.name]: value };
      changed();
    },

    /** Do what a button says. */
    press(name) {
      lab.problem = "";
      if (!host.send || lab.gone) return goBack();
      if (pending || upload) later.push({ press: name });
      else ask(name);
      changed();
    },

    /** Whether a button's frame is still to come. */
    isPressed: () => Boolean(pending?.press) || later.length > 0,

    /** A control is about to be used: fetch what is on both sides of it. */
    takeInHand(control) {
      if (hand?.control === control) return;
      hand = { control, direction: 0 };
      tried = new Set();
      timing.interval = FASTEST;
      ask();
    },

    /** Say why something cannot be; what is on its way still comes. */
    refuse(problem) {
      lab.problem = problem;
      changed();
    },

    /** Send a file in pieces, the next one when the last has arrived. */
    send(file) {
      lab.problem = "";
      if (!host.send || lab.gone) return goBack();
      upload = { file, at: 0 };
      sendPiece();
    },

    subscribe(view) {
      views.add(view);
      return () => views.delete(view);
    },
  };

  for (const frame of [...opening.frames].reverse()) keep(frame, frame.levels ?? {});
  told = keyOf(lab.wanted);
  host.listen?.(receive, () => post({ fields: lab.wanted, missing: false, ahead: [], have: [] }, [keyOf(lab.wanted)]));
  return lab;

  function go(control, value) {
    const before = rank(control, lab.wanted[control.name]);
    const direction = Math.sign(rank(control, value) - before);
    const now = performance.now();
    if (hand?.control === control) timing.interval = clamp(now - timing.moved, FASTEST, SLOWEST);
    timing.moved = now;
    if (hand?.control !== control || hand.direction !== direction) tried = new Set();
    hand = { control, direction };
    lab.wanted = { ...lab.wanted, [control.name]: value };
    const frame = frames.get(keyOf(lab.wanted));
    if (frame) return show(frame), afterPaint(ask);
    if (host.send && !lab.gone) changed();
    else goBack();
    ask();
  }

  /** Do something when what is on view has been painted. */
  function afterPaint(action) {
    requestAnimationFrame(() => setTimeout(action));
  }

  function changed() {
    for (const view of views) view();
  }

  function show(frame) {
    lab.frame = frame;
    lab.wanted = { ...frame.fields };
    for (const { control, value } of later) if (control) lab.wanted[control.name] = value;
    changed();
  }

  /** Say why something cannot be, and go back to what is on view. */
  function goBack(problem = lab.gone ? GONE : host.without ?? "") {
    lab.problem = problem;
    show(lab.frame);
  }

  /** Put a frame in store, if all its levels are there. */
  function keep(frame, arrived, key = keyOf(frame.fields)) {
    const fresh = Object.fromEntries(Object.entries(arrived).map(([digest, data]) => [digest, toBytes(data)]));
    for (const [digest, bytes] of Object.entries(fresh)) levels.put(digest, bytes, bytes.length);
    let size = 2 * (frame.text.length + 400);
    for (const panel of frame.panels) {
      size += 2 * panel.svg.length;
      for (const pixels of panel.pixels) {
        pixels.levels = fresh[pixels.digest] ?? levels.get(pixels.digest); // the store may be too small
        if (!pixels.levels) return null;
        size += pixels.levels.length;
      }
    }
    frames.put(key, frame, size);
    const own = keyOf(frame.fields);
    if (own !== key && !frames.has(own)) frames.put(own, { ...frame, note: "" }, size);
    return frame;
  }

  /** Fields that a few more steps of the control in hand would lead to. */
  function neighbours() {
    if (!hand || timing.moved + 5000 < performance.now() && hand.direction) return [];
    const { control, direction } = hand;
    const needed = Math.ceil((2 * timing.cycle) / timing.interval) + 1;
    const most = timing.frame > SLOW_FRAME ? AHEAD.least : clamp(needed, AHEAD.least, AHEAD.most);
    const now = rank(control, lab.wanted[control.name]);
    const steps = Array.from({ length: most }, (_, n) => n + 1);
    return steps
      .flatMap((step) => (direction ? [direction * step] : [step, -step]))
      .map((step) => valueAt(control, now + step))
      .filter((value) => value !== undefined)
      .map((value) => ({ ...lab.wanted, [control.name]: value }))
      .filter((fields) => !frames.has(keyOf(fields)) && !tried.has(keyOf(fields)))
      .slice(0, most);
  }

  /** The value at a place; undefined where there is none. */
  function valueAt(control, place) {
    if (control.kind === "choice") return control.options[place]?.[1];
    if (control.kind === "toggle") return place === 0 || place === 1 ? place === 1 : undefined;
    const { low, high } = { ...control, ...lab.frame.limits[control.name] };
    return control.kind === "slider" && place >= low && place <= high ? place : undefined;
  }

  /** Tell the kernel what is on view, and ask for what is missing now or soon. */
  function ask(press = undefined) {
    if (!host.send || lab.gone || pending || upload) return;
    const fields = lab.wanted;
    const key = keyOf(fields);
    const missing = press !== undefined || !(frames.has(key) || key === keyOf(lab.frame.fields));
    const ahead = press === undefined ? neighbours() : [];
    if (!missing && !ahead.length && told === key) return;
    const keys = ahead.map(keyOf);
    keys.forEach((some) => tried.add(some));
    const have = levels.entries().filter(([, bytes]) => bytes.length > SMALL_LEVELS).map(([digest]) => digest);
    post({ fields, missing, ahead, have, ...(press !== undefined && { press }) }, [key, ...keys]);
    told = key;
  }

  function post(message, keys, buffers = []) {
    asked += 1;
    pending = { ask: asked, sent: performance.now(), keys, press: message.press };
    watch(asked, PATIENCE);
    tell({ ...message, ask: asked }, buffers);
  }

  /** Say that an answer is waited for; ask more and more seldom whether there is a kernel still. */
  function watch(mine, patience) {
    setTimeout(() => {
      if (pending?.ask !== mine) return;
      if (lab.waiting) tell({ ask: 0 });
      else (lab.waiting = true), changed();
      watch(mine, 2 * patience);
    }, patience);
  }

  function tell(message, buffers = []) {
    try {
      host.send?.(message, buffers);
    } catch {
      lab.gone = true;
      pending = null;
      later = [];
      endUpload();
      goBack();
    }
  }

  function receive(message, buffers) {
    const arrived = Object.fromEntries((message.levels ?? []).map((digest, n) => [digest, buffers[n]]));
    if (message.show) {
      const frame = keep(message.frame, arrived);
      if (frame) (lab.problem = ""), (hand = null), (told = keyOf(frame.fields)), show(frame);
    }
    if (!pending || message.ask !== pending.ask) return;
    if (message.frame) takeFrame({ ...message.frame, note: message.note }, message.place, arrived);
    if (message.problem) takeProblem(message.problem);
    if ("done" in message) finish(message.done, message.left ?? 0);
  }

  function takeFrame(frame, place, arrived) {
    const key = pending.keys[place];
    const kept = keep(frame, arrived, pending.press ? undefined : key);
    if (!kept) return;
    if (pending.press) told = keyOf(frame.fields);
    // a late one is kept, not shown; one that is on view has its note already
    if (pending.press || (key === keyOf(lab.wanted) && key !== keyOf(lab.frame.fields))) show(kept);
  }

  function takeProblem(problem) {
    if (!pending.keys.length) {
      if (upload?.at) endUpload(); // it was a piece of this file, and not of one before it
      lab.refuse(problem);
    } else if (pending.press || pending.keys[0] === keyOf(lab.wanted)) goBack(problem);
  }

  function finish(perFrame, left) {
    for (const key of pending.keys.slice(pending.keys.length - left)) tried.delete(key); // no time for them
    timing.cycle = performance.now() - pending.sent;
    timing.frame = perFrame;
    if (pending.keys.length && !pending.press) told = pending.keys[0]; // and not what came by itself since
    pending = null;
    if (lab.waiting) (lab.waiting = false), changed();
    if (upload) sendPiece();
    else goOn();
  }

  /** Do what came while a question was under way. */
  function goOn() {
    while (later.length && !pending) {
      const { press, control, value } = later.shift();
      if (press === undefined) go(control, value);
      else ask(press);
    }
    ask();
  }

  async function sendPiece() {
    if (pending) return; // it comes when the question is answered
    const mine = upload;
    const { file, at } = mine;
    lab.progress = at / (file.size || 1);
    if (at >= file.size && at > 0) endUpload();
    changed();
    if (!upload) return goOn();
    mine.at = at + PIECE;
    const piece = await file.slice(at, mine.at).arrayBuffer().catch(() => null);
    if (upload !== mine) return; // another was chosen meanwhile
    if (piece) return post({ size: file.size, at }, [], [piece]);
    endUpload();
    lab.refuse(`${file.name} cannot be read.`);
    goOn();
  }

  function endUpload() {
    upload = null;
    lab.progress = 0;
  }
}

/** Make an element. */
function make(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...inside);
  return made;
}

const typing = new WeakSet(); // fields with something typed that is not taken yet

/** Make a field whose keys Jupyter leaves alone; Enter takes what is typed, as leaving it does. */
function field(name, attributes = {}) {
  const made = make(name, { ...attributes, "data-lm-suppress-shortcuts": "true" });
  for (const event of ["change", "blur"]) made.addEventListener(event, () => typing.delete(made));
  if (!["number", "text"].includes(attributes.type)) return made;
  made.addEventListener("input", () => typing.add(made));
  made.addEventListener("keydown", ({ key }) => {
    if (key === "Enter") made.dispatchEvent(new Event("change", { bubbles: true }));
  });
  return made;
}

/** A field under its name. */
const labelled = (control, input) => make("label", {}, make("span", {}, control.label), input);

/** Show a value in a field, unless someone types into it. */
function bring(input, value) {
  const same = typeof value === "number" ? input.value !== "" && Number(input.value) === value : input.value === value;
  if (!same && !typing.has(input)) input.value = String(value);
}

/**
 * Controls: each gives its element, and a function that brings it in line with the fields.
 * @type {Object<string, (lab: any, control: Control) => [HTMLElement, (value: any, limits: any) => void]>}
 */
const CONTROLS = {
  slider(lab, control) {
    const track = field("input", { type: "range", step: 1 });
    const typed = field("input", { type: "number", step: 1, "aria-label": `${control.label}, as a number` });
    const row = make("div", {}, labelled(control, track), typed);
    let { low, high } = control;
    track.addEventListener("input", () => lab.move(control, Number(track.value)));
    typed.addEventListener("change", () => {
      const number = Number(typed.value);
      if (typed.value !== "" && Number.isInteger(number) && number >= low && number <= high) lab.move(control, number);
      else lab.refuse(`${control.label} goes from ${low} to ${high}, by whole numbers.`);
    });
    return [row, (value, limits) => {
      ({ low, high } = { ...control, ...limits });
      for (const input of [track, typed]) {
        if (input.min !== String(low) || input.max !== String(high)) {
          Object.assign(input, { min: low, max: high, disabled: low === high }); // before the value, or it is cut
        }
        bring(input, value);
      }
    }];
  },

  choice(lab, control) {
    if (control.style === "radio") return radio(lab, control);
    if (control.options.length > LONG_LIST) return search(lab, control);
    const list = field("select");
    list.append(...control.options.map(([label], place) => make("option", { value: place }, label)));
    list.addEventListener("change", () => lab.move(control, control.options[list.value][1]));
    return [make("div", {}, labelled(control, list)), (value) => (list.value = String(placeOf(control, value)))];
  },

  toggle(lab, control) {
    const box = field("input", { type: "checkbox" });
    box.addEventListener("change", () => lab.move(control, box.checked));
    const label = make("label", { class: "gap-toggle" }, box, make("span", {}, control.label));
    return [make("div", {}, label), (value) => (box.checked = value)];
  },

  button(lab, control) {
    const button = field("button", { type: "button" });
    button.append(control.label);
    button.addEventListener("click", () => lab.press(control.name));
    return [make("div", {}, button), () => {}];
  },

  numbers(lab, control) {
    const grid = make("div", { class: "gap-numbers", role: "group", "aria-label": control.label });
    let side = 0;
    grid.addEventListener("change", () => {
      const inputs = [...grid.querySelectorAll("input")];
      const numbers = inputs.map((input) => (input.value === "" ? NaN : Number(input.value)));
      const { low, high } = control;
      const bad = inputs[numbers.findIndex((number) => !(number >= low && number <= high))];
      const name = bad?.getAttribute("aria-label");
      if (bad) return lab.refuse(`Expected a number from ${low} to ${high} in ${name}, got ${bad.value || "another thing"}.`);
      lab.move(control, Array.from({ length: side }, (_, row) => numbers.slice(row * side, (row + 1) * side)));
    });
    return [make("div", {}, make("span", {}, control.label), grid), (rows) => {
      if (rows.length !== side) fill(grid, control, (side = rows.length));
      const inputs = grid.querySelectorAll("input");
      rows.flat().forEach((number, place) => bring(inputs[place], number));
    }];
  },

  file(lab, control) {
    const input = field("input", { type: "file", accept: control.accept });
    const bar = make("progress", { max: 1, "aria-label": `${control.label}, how much has arrived` });
    input.addEventListener("change", () => {
      if (input.files?.[0]) lab.send(input.files[0]);
      input.value = ""; // so that the same file can be chosen again
    });
    const label = make("label", { class: "gap-file" }, input, make("span", {}, control.label));
    return [make("div", {}, label, bar), () => {
      bar.value = lab.progress;
      bar.hidden = lab.progress === 0;
    }];
  },
};

/** All answers in view, of which one is chosen. */
function radio(lab, control) {
  const set = make("fieldset", {}, make("legend", {}, control.label));
  const group = `gap-${Math.random().toString(36).slice(2)}`;
  const inputs = control.options.map(([label, value]) => {
    const input = field("input", { type: "radio", name: group });
    input.addEventListener("change", () => lab.move(control, value));
    set.append(make("label", {}, input, make("span", {}, label)));
    return input;
  });
  return [make("div", { class: "gap-radio" }, set), (value) => {
    inputs.forEach((input, place) => (input.checked = place === placeOf(control, value)));
  }];
}

/** A field to type a part of a name into, for lists that are too long to look through. */
function search(lab, control) {
  const id = `gap-${Math.random().toString(36).slice(2)}`;
  const input = field("input", { type: "text", list: id, autocomplete: "off" });
  const list = make("datalist", { id }, ...control.options.map(([label]) => make("option", { value: label })));
  const labels = control.options.map(([label]) => label.toLowerCase());
  const begin = () => input.matches(":focus") && input.select(); // so that typing begins a new name
  input.addEventListener("focus", begin);
  input.addEventListener("change", () => {
    const typed = input.value.trim().toLowerCase();
    const place = [labels.indexOf(typed), labels.findIndex((label) => typed && label.includes(typed))].find((at) => at >= 0);
    if (place === undefined) lab.refuse(`${control.label}: no name holds “${input.value}”.`);
    else lab.move(control, control.options[place][1]);
    begin();
  });
  return [make("div", {}, labelled(control, input), list), (value) => {
    bring(input, control.options[placeOf(control, value)]?.[0] ?? "");
  }];
}

function fill(grid, { low, high }, side) {
  grid.style.setProperty("--gap-side", String(side));
  const names = Array.from({ length: side * side }, (_, n) => `row ${Math.floor(n / side)}, column ${n % side}`);
  const attributes = { type: "number", step: "any", min: low, max: high };
  grid.replaceChildren(...names.map((name) => field("input", { ...attributes, "aria-label": name })));
}

/** Show a panel in its place; what has not changed is left alone. */
function drawPanel(place, panel, palettes) {
  if (place.panel === panel) return;
  const { root, svg, below } = place;
  root.style.setProperty("--gap-width", String(panel.width));
  root.style.setProperty("--gap-height", String(panel.height));
  svg.setAttribute("viewBox", `0 0 ${panel.width} ${panel.height}`);
  if (place.panel?.svg !== panel.svg) replaceWhatDiffers(svg, panel.svg);
  while (below.children.length > panel.pixels.length) below.lastChild.remove();
  panel.pixels.forEach((pixels, n) => {
    const canvas = below.children[n] ?? below.appendChild(make("canvas"));
    const [left, top, width, height] = pixels.box;
    const drawn = `${pixels.digest} ${pixels.palette}`;
    if (canvas.dataset.drawn !== drawn) drawPixels(canvas, pixels, palettes);
    canvas.dataset.drawn = drawn;
    Object.assign(canvas.style, {
      left: `${(100 * left) / panel.width}%`,
      top: `${(100 * top) / panel.height}%`,
      width: `${(100 * width) / panel.width}%`,
      height: `${(100 * height) / panel.height}%`,
      opacity: pixels.opacity,
      imageRendering: pixels.smooth ? "auto" : "pixelated",
    });
  });
  place.panel = panel;
}

/** Letters that stay need not be laid out again, which takes longest. */
function replaceWhatDiffers(svg, drawn) {
  const fresh = svg.cloneNode(false);
  fresh.innerHTML = drawn;
  const [before, after] = [[...svg.children], [...fresh.children]];
  before.forEach((element, n) => {
    if (!after[n]) element.remove();
    else if (!element.isEqualNode(after[n])) element.replaceWith(after[n]);
  });
  svg.append(...after.slice(before.length));
}

function drawPixels(canvas, { shape: [rows, columns, channels], levels, palette }, palettes) {
  if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
  const image = new ImageData(columns, rows);
  const table = channels ? null : new Uint32Array(palettes[palette].slice().buffer);
  const colours = new Uint32Array(image.data.buffer);
  for (let n = 0; n < colours.length; n += 1) {
    colours[n] = table
      ? table[levels[n]]
      : levels[3 * n] | (levels[3 * n + 1] << 8) | (levels[3 * n + 2] << 16) | 0xff000000;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Make the place of a panel. */
function makePlace() {
  const root = make("div", { class: "gap-panel" });
  root.innerHTML = '<div class="gap-pixels"></div><svg aria-hidden="true"></svg>'; // the frame's text says it in order
  return { root, below: root.children[0], svg: root.children[1], panel: null };
}

/** Put other words into an element; what stays need not be laid out again. */
function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/** The same with paragraphs. */
function write(element, paragraphs) {
  const said = paragraphs.filter(Boolean);
  while (element.children.length > said.length) element.lastChild.remove();
  said.forEach((words, n) => say(element.children[n] ?? element.appendChild(make("p")), words));
}

/**
 * Put a lab on a page.
 * @param {HTMLElement} el
 * @param {ReturnType<typeof createLab>} lab
 * @returns {() => void} takes it away again
 */
export function attach(el, lab) {
  const { controls, name } = lab.opening;
  const made = controls.map((control) => {
    const [root, bringInLine] = CONTROLS[control.kind](lab, control);
    root.classList.add("gap-control", `gap-${control.kind}`);
    for (const event of ["focusin", "pointerenter"]) root.addEventListener(event, () => lab.takeInHand(control));
    return { control, root, bringInLine };
  });
  const rootsOf = (test) => made.filter(({ control }) => test(control)).map(({ root }) => root);
  const panels = make("div", { class: "gap-panels" }, ...rootsOf(({ kind }) => kind === "numbers"));
  const status = make("p", { class: "gap-status", role: "status" });
  const room = make("div", { "aria-hidden": "true" });
  const words = make("div", { "aria-live": "polite" });
  const problem = make("div", { class: "gap-problem", role: "alert" });
  const text = make("p", { class: "gap-hidden" });
  const root = make("div", { class: "gap-lab", role: "group", "aria-label": name },
    make("div", { class: "gap-main" }, ...rootsOf(({ main }) => main)),
    make("div", { class: "gap-more" }, ...rootsOf(({ main, kind }) => !main && kind !== "numbers")),
    status, panels, make("div", { class: "gap-words" }, room, words, problem), text);
  const places = [];

  function follow() {
    const { frame } = lab;
    for (const { control, root: place, bringInLine } of made) {
      const limits = frame.limits[control.name] ?? {};
      bringInLine(lab.wanted[control.name], limits);
      place.classList.toggle("gap-away", Boolean(limits.hidden));
    }
    frame.panels.forEach((panel, n) => {
      if (!places[n]) panels.append((places[n] = makePlace()).root);
      drawPanel(places[n], panel, lab.palettes);
    });
    const stale = keyOf(lab.wanted) !== keyOf(frame.fields);
    const waits = lab.waiting && (stale || lab.progress > 0 || lab.isPressed());
    say(status, waits ? "Waiting for the kernel…" : frame.note ?? "");
    root.classList.toggle("gap-stale", lab.gone || waits);
    write(words, [frame.large, ...frame.words]);
    words.className = [frame.large && "gap-large", frame.verdict && `gap-${frame.verdict}`].filter(Boolean).join(" ");
    write(room, frame.room);
    room.className = frame.panels.length ? words.className : "gap-right"; // before there is a verdict, too
    write(problem, [lab.problem]);
    words.classList.toggle("gap-away", Boolean(lab.problem));
    say(text, frame.panels.length ? frame.text : "");
  }

  follow();
  root.addEventListener("focusout", follow); // a field that was typed into may be behind
  el.append(root);
  const unsubscribe = lab.subscribe(follow);
  return () => (unsubscribe(), root.remove());
}

/** Make a lab of a host, and put it on a page. */
export function mount(el, host) {
  return attach(el, createLab(host));
}

/** The live host, as anywidget wants it: all views of a model show the same lab. */
export default () => {
  let lab; // not by what the model opens with, which is another after a connection was lost
  return {
    initialize({ model }) {
      const send = (message, buffers) => model.send(message, undefined, buffers);
      const listen = (onMessage, onDoubt) => {
        model.on("msg:custom", onMessage);
        model.on("comm_live_update", onDoubt);
      };
      lab = createLab({ opening: model.get("opening"), send, listen });
    },
    render: ({ el }) => attach(el, lab),
  };
};

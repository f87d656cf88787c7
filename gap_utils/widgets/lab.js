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
 * @typedef {{digest: string, shape: number[], box: number[], names: string[],
 *            levels?: Uint8Array}} Readout
 * @typedef {{width: number, height: number, parts: string[], pixels: Pixels[],
 *            readout?: Readout, above: boolean}} Panel
 * @typedef {{fields: Fields, limits: Object<string, any>, panels: Panel[], words: string[],
 *            large: string[][], room: string[], verdict: string, text: string, note?: string,
 *            levels?: Object<string, any>}} Frame
 * @typedef {{kind: string, name: string, label: string, [more: string]: any}} Control
 * @typedef {{opening: {name: string, controls: Control[], palettes: Object<string, any>,
 *                      frames: Frame[]},
 *            send?: (message: Object<string, any>, buffers?: ArrayBuffer[]) => void,
 *            listen?: (onMessage: (message: any, buffers: any[]) => void,
 *                      onDoubt: () => void) => void,
 *            waits?: string}} Host
 *     `send` and `listen` reach what answers: a kernel, or on a page without one the frames that
 *     were made beforehand (page.js). `send` throws where the kernel is gone. `waits` is said
 *     while an answer is waited for.
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
const LONG_LIST = 30; // options; for more there is a field to find one
const BEAT = 800; // milliseconds from step to step of what plays
const FEW = 12; // changed lines of text; where more change, none is made to stand out
const CALM = 250; // milliseconds since the last change; sooner, nothing is seen to move, for that costs a frame
const GONE = "The kernel behind this lab is gone. Run its cell again to go on.";

/** What tells fields apart. @type {(fields: Fields) => string} */
export const keyOf = (fields) => JSON.stringify(Object.keys(fields).sort().map((name) => [name, fields[name]]));

/** @type {(value: number, low: number, high: number) => number} */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The place of a value among the options of a choice. */
const placeOf = ({ options }, value) =>
  options.findIndex((option) => JSON.stringify(option[1]) === JSON.stringify(value));

/** @type {(fields: Fields) => string} */
const namesOf = (fields) => Object.keys(fields).join();

/**
 * How far a slider goes, and what else is said of a control, with the frame on view. `values` are
 * all that it can have, where there are gaps between them.
 */
function boundsOf(lab, control) {
  const bounds = { ...control, ...lab.frame.limits[control.name] };
  const [low, high] = [bounds.values?.[0] ?? bounds.low, bounds.values?.at(-1) ?? bounds.high];
  return control.kind === "slider" ? { ...bounds, low, high } : bounds;
}

/** Whether a control can have a value, with limits as they are. */
const isOffered = ({ values }, value) => !values || values.includes(value);

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
  const controls = Object.fromEntries(opening.controls.map((control) => [control.name, control]));
  /** @type {{names: string[], way: number} | null} */
  let hand = null; // the controls in use; which way a single one goes
  let tried = new Set(); // what was asked for ahead of need, so that it is asked for once
  let pending = null; // the question that is not answered yet; one at a time
  let told = ""; // what the kernel knows to be on view
  let upload = null; // a file on its way; no question comes between its pieces
  let asked = Math.floor(Math.random() * 1e9); // answers go to all pages that a kernel has
  /** @type {{press?: string, changes?: Fields}[]} */
  let later = []; // what buttons say while a question is under way, and what was moved after that
  let playing = null;

  const lab = {
    opening,
    controls,
    palettes,
    /** @type {Frame} */ frame: opening.frames[0],
    /** @type {Fields} */ wanted: opening.frames[0].fields,
    problem: "",
    waits: host.waits ?? "Waiting for the kernel…",
    waiting: false,
    gone: false,
    progress: 0,
    /** @type {Control | undefined} */ slider: opening.controls.find(({ kind }) => kind === "slider"), // used last

    /** Go where controls point; after what the buttons pressed before it say. */
    move(changes) {
      lab.problem = "";
      if (!pending?.press && !later.length) return go(changes);
      if (namesOf(later.at(-1)?.changes ?? {}) === namesOf(changes)) later.pop();
      later.push({ changes });
      lab.wanted = { ...lab.wanted, ...changes };
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

    /** Whether the frame of what the controls show is still to come. */
    isStale: () => keyOf(lab.wanted) !== keyOf(lab.frame.fields),

    /** Whether a button's frame is still to come. */
    isPressed: () => Boolean(pending?.press) || later.length > 0,

    /** A control is about to be used: fetch what is on both sides of it. */
    takeInHand({ name }) {
      if (hand?.names.join() === name) return;
      hand = { names: [name], way: 0 };
      tried = new Set();
      timing.interval = FASTEST;
      ask();
    },

    isPlaying: () => playing !== null,

    /** Step the slider used last from here to its end, at the end from its beginning; or stop. */
    play() {
      const mine = playing ? null : {};
      playing = mine;
      lab.problem = "";
      if (mine) step(valueAfter(lab.slider, 1) ?? boundsOf(lab, lab.slider).low);
      else changed();

      function step(value) {
        lab.move({ [lab.slider.name]: value });
        setTimeout(beat, BEAT);
      }

      function beat() {
        if (playing !== mine) return;
        if (lab.isStale()) return void setTimeout(beat, BEAT); // until its frame is on view
        const value = valueAfter(lab.slider, 1);
        if (value !== undefined && !lab.problem && views.size) step(value);
        else (playing = null), changed();
      }
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

  function go(changes) {
    const names = Object.keys(changes).filter((name) => name in controls);
    const single = names.length === 1 && controls[names[0]];
    const way = single ? Math.sign(rank(single, changes[single.name]) - rank(single, lab.wanted[single.name])) : 0;
    const now = performance.now();
    const same = hand?.names.join() === names.join();
    if (same) timing.interval = clamp(now - timing.moved, FASTEST, SLOWEST);
    timing.moved = now;
    if (!same || hand.way !== way) tried = new Set();
    hand = { names, way };
    if (single?.kind === "slider" && single !== lab.slider) [lab.slider, playing] = [single, null];
    lab.wanted = { ...lab.wanted, ...changes };
    const frame = frames.get(keyOf(lab.wanted));
    if (frame) return show(frame), requestAnimationFrame(() => setTimeout(ask)); // when it is painted
    if (host.send && !lab.gone) changed();
    else goBack();
    ask();
  }

  function changed() {
    for (const view of views) view();
  }

  function show(frame) {
    lab.frame = frame;
    lab.wanted = { ...frame.fields };
    for (const { changes } of later) Object.assign(lab.wanted, changes);
    changed();
  }

  /** Say why something cannot be, and go back to what is on view. */
  function goBack(problem = lab.gone ? GONE : "") {
    lab.problem = problem;
    show(lab.frame);
  }

  /** Put a frame in store, if all its levels are there. */
  function keep(frame, arrived, key = keyOf(frame.fields)) {
    const fresh = Object.fromEntries(Object.entries(arrived).map(([digest, data]) => [digest, toBytes(data)]));
    for (const [digest, bytes] of Object.entries(fresh)) levels.put(digest, bytes, bytes.length);
    let size = 2 * (frame.text.length + 400);
    for (const panel of frame.panels) {
      for (const element of panel.parts) size += 2 * element.length;
      for (const part of panel.readout ? [...panel.pixels, panel.readout] : panel.pixels) {
        part.levels = fresh[part.digest] ?? levels.get(part.digest); // the store may be too small
        if (!part.levels) return null;
        size += part.levels.length;
      }
    }
    frames.put(key, frame, size);
    const own = keyOf(frame.fields);
    if (own !== key && !frames.has(own)) frames.put(own, { ...frame, note: "" }, size);
    return frame;
  }

  /** Fields that a few more steps of the controls in hand would lead to. */
  function neighbours() {
    if (!hand || timing.moved + 5000 < performance.now() && hand.way) return [];
    const { names, way } = hand;
    const needed = Math.ceil((2 * timing.cycle) / timing.interval) + 1;
    const most = timing.frame > SLOW_FRAME ? AHEAD.least : clamp(needed, AHEAD.least, AHEAD.most);
    const steps = Array.from({ length: most }, (_, n) => n + 1);
    return steps
      .flatMap((step) => (way ? [way * step] : [step, -step]))
      .flatMap((step) => names.map((name) => [name, valueAfter(controls[name], step)]))
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => ({ ...lab.wanted, [name]: value }))
      .filter((fields) => !frames.has(keyOf(fields)) && !tried.has(keyOf(fields)))
      .slice(0, most);
  }

  /** The value so many steps from here; undefined where there is none. */
  function valueAfter(control, step) {
    const { low, high, values } = boundsOf(lab, control);
    if (values) return values[values.indexOf(lab.wanted[control.name]) + step];
    const place = rank(control, lab.wanted[control.name]) + step;
    if (control.kind === "choice") return control.options[place]?.[1];
    if (control.kind === "toggle") return place === 0 || place === 1 ? place === 1 : undefined;
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
    const isNews = lab.waiting || pending.press;
    [pending, lab.waiting] = [null, false];
    if (isNews) changed();
    if (upload) sendPiece();
    else goOn();
  }

  /** Do what came while a question was under way. */
  function goOn() {
    while (later.length && !pending) {
      const { press, changes } = later.shift();
      if (press === undefined) go(changes);
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
  if (attributes.type !== "number") return made;
  made.addEventListener("input", () => typing.add(made));
  made.addEventListener("keydown", ({ key }) => {
    if (key === "Enter") made.dispatchEvent(new Event("change", { bubbles: true }));
  });
  return made;
}

/** Make a button that can be idle: it keeps the focus then, which a disabled one would lose. */
function makeButton(press) {
  const button = field("button", { type: "button" });
  let isIdle = false;
  button.addEventListener("click", () => isIdle || press());
  return [button, (idle) => {
    isIdle = Boolean(idle);
    button.setAttribute("aria-disabled", String(isIdle));
  }];
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
 * @type {Object<string, (lab: any, control: Control, set: (value: any) => void) =>
 *   [HTMLElement, (value: any, limits: any) => void]>}
 */
const CONTROLS = {
  slider(lab, control, set) {
    const track = field("input", { type: "range", step: 1 });
    const typed = field("input", { type: "number", step: 1, "aria-label": `${control.label}, as a number` });
    const row = make("div", {}, labelled(control, track), typed);
    let { low, high, values } = control; // with gaps between the values, the track has their places
    track.addEventListener("input", () => set(values ? values[track.value] : Number(track.value)));
    typed.addEventListener("change", () => {
      const number = Number(typed.value);
      const isThere = Number.isInteger(number) && number >= low && number <= high && isOffered({ values }, number);
      if (typed.value !== "" && isThere) set(number);
      else if (values) lab.refuse(`${control.label} is one of these here: ${values.join(", ")}.`);
      else lab.refuse(`${control.label} goes from ${low} to ${high}, by whole numbers.`);
    });
    return [row, (value) => {
      ({ low, high, values } = boundsOf(lab, control));
      const ends = [[track, values ? 0 : low, values ? values.length - 1 : high], [typed, low, high]];
      for (const [input, min, max] of ends) {
        if (input.min !== String(min) || input.max !== String(max)) {
          Object.assign(input, { min, max, disabled: min === max }); // before the value, or it is cut
        }
      }
      bring(track, values ? values.indexOf(value) : value);
      if (values) track.setAttribute("aria-valuetext", String(value));
      else track.removeAttribute("aria-valuetext");
      bring(typed, value);
    }];
  },

  choice(lab, control, set) {
    if (control.style === "radio") return radio(control, set);
    if (control.options.length > LONG_LIST) return search(lab, control, set);
    const list = field("select");
    list.append(...control.options.map(([label], place) => make("option", { value: place }, label)));
    list.addEventListener("change", () => set(control.options[list.value][1]));
    return [make("div", {}, labelled(control, list)), (value, limits) => {
      offer([...list.options], control, limits);
      list.value = String(placeOf(control, value));
    }];
  },

  toggle(lab, control, set) {
    const box = field("input", { type: "checkbox" });
    box.addEventListener("change", () => set(box.checked));
    const label = make("label", { class: "gap-toggle" }, box, make("span", {}, control.label));
    return [make("div", {}, label), (value, limits) => Object.assign(box, { checked: value, disabled: !isOffered(limits, !value) })];
  },

  button(lab, control) {
    const [button, setIdle] = makeButton(() => lab.press(control.name));
    button.append(control.label);
    return [make("div", {}, button), (_, { idle }) => setIdle(idle && !lab.isStale() && !lab.isPressed())];
  },

  numbers(lab, control, set) {
    const grid = make("div", { class: "gap-numbers", role: "group", "aria-label": control.label });
    let side = 0;
    grid.addEventListener("change", () => {
      const inputs = [...grid.querySelectorAll("input")];
      const numbers = inputs.map((input) => (input.value === "" ? NaN : Number(input.value)));
      const { low, high } = control;
      const bad = inputs[numbers.findIndex((number) => !(number >= low && number <= high))];
      const name = bad?.getAttribute("aria-label");
      if (bad) return lab.refuse(`Expected a number from ${low} to ${high} in ${name}, got ${bad.value || "another thing"}.`);
      set(Array.from({ length: side }, (_, row) => numbers.slice(row * side, (row + 1) * side)));
    });
    function fill(count) {
      side = count;
      const names = Array.from({ length: side * side }, (_, n) => `row ${Math.floor(n / side)}, column ${n % side}`);
      const attributes = { type: "number", step: "any", min: control.low, max: control.high };
      grid.replaceChildren(...names.map((name) => field("input", { ...attributes, "aria-label": name })));
    }
    return [grid, (rows) => {
      if (rows.length !== side) fill(rows.length);
      const numbers = rows.flat(); // a field that is taken away while it has the focus calls this again
      grid.querySelectorAll("input").forEach((input, place) => bring(input, numbers[place]));
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

/** Let only those options of a choice be taken that it can have. */
const offer = (made, { options }, limits) =>
  made.forEach((option, place) => (option.disabled = !isOffered(limits, options[place][1])));

/** All answers in view, of which one is chosen. */
function radio(control, set) {
  const fieldset = make("fieldset", {}, make("legend", {}, control.label));
  const group = `gap-${Math.random().toString(36).slice(2)}`;
  const inputs = control.options.map(([label, value]) => {
    const input = field("input", { type: "radio", name: group });
    input.addEventListener("change", () => set(value));
    fieldset.append(make("label", {}, input, make("span", {}, label)));
    return input;
  });
  return [make("div", { class: "gap-radio" }, fieldset), (value, limits) => {
    offer(inputs, control, limits);
    inputs.forEach((input, place) => (input.checked = place === placeOf(control, value)));
  }];
}

/** A list that is too long to look through, and a field to find a name in it. */
function search(lab, control, set) {
  const part = field("input", { type: "search", placeholder: "find", "aria-label": `${control.label}, find by name` });
  const list = field("select");
  const options = control.options.map(([label], place) => make("option", { value: place }, label));
  const typed = () => part.value.trim().toLowerCase();
  const matches = () => options.filter(({ label, disabled }) => !disabled && label.toLowerCase().includes(typed()));
  const narrow = (chosen) => { // which stays in the list
    const found = new Set([...matches(), options[chosen]]);
    list.replaceChildren(...options.filter((option) => found.has(option)));
    list.value = chosen;
  };
  part.addEventListener("input", () => narrow(list.value));
  part.addEventListener("keydown", ({ key }) => {
    if (key !== "Enter") return;
    const found = matches();
    const best = found.find(({ label }) => label.toLowerCase() === typed()) ?? found[0];
    if (best) set(control.options[best.value][1]);
    else lab.refuse(`${control.label}: no name holds “${part.value}”.`);
  });
  list.addEventListener("change", () => set(control.options[list.value][1]));
  return [make("div", { class: "gap-search" }, labelled(control, list), part), (value, limits) => {
    offer(options, control, limits);
    const place = String(placeOf(control, value));
    if (list.value !== place || !list.length) narrow(place);
  }];
}

/** Show a panel in its place; what has not changed is left alone. */
function drawPanel(place, panel, palettes, isCalm) {
  if (place.panel === panel) return;
  const { root, svg, over, below } = place;
  const size = `0 0 ${panel.width} ${panel.height}`;
  if (svg.getAttribute("viewBox") !== size) {
    root.style.setProperty("--gap-width", String(panel.width));
    root.style.setProperty("--gap-height", String(panel.height));
    for (const layer of [svg, over]) layer.setAttribute("viewBox", size);
  }
  if (Boolean(place.panel?.readout) !== Boolean(panel.readout)) {
    over.tabIndex = panel.readout ? 0 : -1;
    over.setAttribute("aria-hidden", String(!panel.readout));
  }
  change(place, panel.parts, isCalm);
  while (below.children.length > panel.pixels.length) below.lastChild.remove();
  panel.pixels.forEach((pixels, n) => {
    const canvas = below.children[n] ?? below.appendChild(make("canvas"));
    const { digest, palette, box, opacity, smooth } = pixels;
    const drawn = JSON.stringify([digest, palette, box, opacity, smooth, size]);
    if (canvas.dataset.drawn === drawn) return;
    canvas.dataset.drawn = drawn;
    drawPixels(canvas, pixels, palettes);
    Object.assign(canvas.style, {
      ...placeOn(panel, box),
      opacity,
      imageRendering: smooth ? "auto" : "pixelated",
    });
  });
  place.panel = panel;
}

/** Where a box of a panel is, as CSS. */
const placeOn = ({ width, height }, [x, y, wide, high]) => ({
  left: `${(100 * x) / width}%`,
  top: `${(100 * y) / height}%`,
  width: `${(100 * wide) / width}%`,
  height: `${(100 * high) / height}%`,
});

/** Change what differs, and leave the rest: what moves can be seen moving, and letters are laid out once. */
function change(place, after, isCalm) {
  const { svg, panel, moving } = place;
  const before = panel?.parts ?? [];
  const changed = [...after.keys()].filter((n) => after[n] !== before[n]);
  const fresh = svg.cloneNode(false);
  fresh.innerHTML = changed.map((n) => after[n]).join("");
  const [old, made] = [[...svg.children], [...fresh.children]];
  const [renewed, moved] = [[], []];
  changed.forEach((n, k) => {
    if (!old[n]) svg.append(made[k]);
    else if (isAlike(old[n], made[k])) {
      if (old[n].matches(".gap-mark, .gap-frame")) moved.push([old[n], boxOf(old[n])]);
      copyAttributes(old[n], made[k]);
    } else {
      old[n].replaceWith(made[k]);
      if (old[n].tagName === "text") renewed.push(made[k]);
    }
  });
  for (const element of old.slice(after.length)) element.remove();
  for (const one of moving.splice(0)) one.cancel();
  if (!isCalm) return;
  for (const [element, from] of moved) moving.push(element.animate(between(from, boxOf(element)), 200));
  if (renewed.length > FEW) return;
  for (const element of renewed) moving.push(element.animate({ opacity: [0.2, 1] }, 300));
}

/** The way from one box to another. */
const between = (from, to) =>
  Object.fromEntries(["x", "y", "width", "height"].map((name, n) => [name, [`${from[n]}px`, `${to[n]}px`]]));

/** Whether two elements differ in attributes at most; those that hold others are not looked into. */
const isAlike = (one, other) =>
  one.tagName === other.tagName &&
  one.textContent === other.textContent &&
  !one.childElementCount &&
  !other.childElementCount;

function copyAttributes(element, other) {
  for (const { name } of [...element.attributes]) if (!other.hasAttribute(name)) element.removeAttribute(name);
  for (const { name, value } of other.attributes) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
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

/** Make the place of a panel; what is over it shows what is pointed at. */
function makePlace() {
  const root = make("div", { class: "gap-panel" });
  // the frame's text says in order what is drawn, and controls do what a touch does
  root.innerHTML = `<div class="gap-pixels"></div><svg aria-hidden="true"></svg>
    <svg class="gap-over" aria-hidden="true" role="application" aria-label="Squares: arrow keys read their numbers"></svg>`;
  const over = root.children[2];
  over.dataset.lmSuppressShortcuts = "true";
  return { root, below: root.children[0], svg: root.children[1], over, panel: null, moving: [] };
}

/** Put other words into an element; what stays need not be laid out again. */
function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/** The same with paragraphs, below others that are written already. */
function write(element, paragraphs, first = []) {
  const said = paragraphs.filter(Boolean);
  if (first.length && element.firstChild !== first[0]) element.prepend(...first);
  while (element.children.length > first.length + said.length) element.lastChild.remove();
  said.forEach((words, n) => say(element.children[first.length + n] ?? element.appendChild(make("p")), words));
}

/** Write a line in pieces; those with a link can be pointed at. */
function writePieces(line, pieces) {
  const written = JSON.stringify(pieces);
  if (line.dataset.pieces === written) return;
  line.dataset.pieces = written;
  line.replaceChildren(...pieces.map(([words, link]) => (link ? make("span", { "data-link": link }, words) : words)));
}

/** The button that steps a slider by itself, as wide as the longest of its labels. */
function makePlayButton(lab) {
  const sliders = lab.opening.controls.filter(({ kind }) => kind === "slider");
  const label = make("span", { class: "gap-play-label" });
  const [button, setIdle] = makeButton(lab.play);
  button.append(label, ...sliders.map((slider) => make("span", { "aria-hidden": "true" }, `▶\uFE0E Play ${slider.label}`)));
  return [make("div", { class: "gap-control gap-play", hidden: "" }, button), () => {
    button.parentElement.hidden = !lab.slider;
    if (!lab.slider) return;
    const { label: name, low, high, hidden } = boundsOf(lab, lab.slider);
    say(label, lab.isPlaying() ? "■ Stop" : `▶\uFE0E Play ${name}`);
    setIdle(hidden || low === high);
  }];
}

/**
 * Let the picture be touched: what an element may say of that is told in svg.py, at `element`.
 * @returns {() => void} shows what is pointed at in the frame on view
 */
function makeTouchable(root, lab, places, focusOn, signal) {
  const bubble = make("div", { class: "gap-bubble", "aria-hidden": "true" });
  const spoken = make("p", { class: "gap-hidden", "aria-live": "polite" });
  root.append(spoken);
  let links = [];
  let square = null; // of a readout: row and column
  let pointed = null; // the place with that square
  let pull = null;
  let lit = []; // elements
  const touched = ({ target }, name) => target.closest?.(`.gap-lab [data-${name}]`);
  const told = (element, name) => JSON.parse(element.dataset[name]);

  root.addEventListener("pointerover", (event) => light(touched(event, "link")));
  root.addEventListener("focusin", (event) => light(touched(event, "link")));
  root.addEventListener("pointermove", (event) => (pull?.svg.isConnected ? drag(event) : readAt(event)));
  root.addEventListener("pointerleave", ({ pointerType }) => {
    if (pointerType !== "touch") light(null), read(null); // a tap stays
  });
  root.addEventListener("pointerdown", (event) => {
    root.classList.add("gap-by-pointer"); // which has no need of a ring around what goes on with the keyboard
    if (!event.isPrimary) return; // a second finger
    light(touched(event, "link"));
    readAt(event);
    const element = touched(event, "drag");
    if (!element || event.button) return;
    const { pointerId: id, clientX: x, clientY: y } = event;
    const [svg, by] = [element.ownerSVGElement, told(element, "drag")];
    pull = { id, x, y, svg, by, scale: svg.getScreenCTM().a, start: lab.wanted };
    svg.setPointerCapture(id);
    svg.classList.add("gap-pulled");
    event.preventDefault(); // no text is marked meanwhile
    focusOn(Object.keys(by)[0]);
  });
  root.addEventListener("lostpointercapture", ({ target }) => {
    if (target !== pull?.svg) return; // the square loses a finger to its svg
    target.classList.remove("gap-pulled");
    pull = null;
  });
  root.addEventListener("click", (event) => {
    const [set, focus] = [touched(event, "set"), touched(event, "focus")];
    if (set) {
      const fields = told(set, "set");
      lab.move(fields);
      focusOn(Object.keys(fields)[0]);
    } else if (focus) {
      const all = [...root.querySelectorAll(`[data-focus="${focus.dataset.focus}"]`)];
      focusOn(focus.dataset.focus, all.indexOf(focus));
    }
    light(touched(event, "link")); // the pointer is still there
  });
  root.addEventListener("focusout", ({ target }) => {
    if (target === pointed?.over) read(null);
  });
  window.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") light(null), read(null);
  }, { signal, capture: true }); // whatever has the focus, and before Jupyter takes the key
  root.addEventListener("keydown", (event) => {
    root.classList.remove("gap-by-pointer");
    const place = places.find(({ over, panel }) => over === event.target && panel.readout);
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (!place || down === undefined) return;
    event.preventDefault();
    const [, rows, columns] = place.panel.readout.shape;
    const [row, column] = square ? [square[0] + down, square[1] + right] : [0, 0];
    read(place, [clamp(row, 0, rows - 1), clamp(column, 0, columns - 1)]);
    say(spoken, bubble.innerText);
  });

  return show;

  function drag({ pointerId, clientX, clientY }) {
    if (pointerId !== pull.id) return;
    const moved = { x: (clientX - pull.x) / pull.scale, y: (clientY - pull.y) / pull.scale };
    const fields = Object.entries(pull.by).map(([name, [axis, units]]) => {
      const { low, high } = boundsOf(lab, lab.controls[name]);
      return [name, clamp(pull.start[name] + Math.round(moved[axis] / units), low, high)];
    });
    if (fields.some(([name, value]) => lab.wanted[name] !== value)) lab.move(Object.fromEntries(fields));
  }

  /** Light up what has a link with an element. */
  function light(element) {
    const named = element?.dataset.link.split(" ") ?? [];
    if (named.join() === links.join()) return;
    links = named;
    show();
  }

  function readAt({ target, clientX, clientY }) {
    const place = places.find((one) => one.panel.readout && one.root.contains(target));
    if (!place) return read(null);
    const { box: [x, y, width, height], shape: [, rows, columns] } = place.panel.readout;
    const at = new DOMPoint(clientX, clientY).matrixTransform(place.svg.getScreenCTM().inverse());
    const [row, column] = [Math.floor((rows * (at.y - y)) / height), Math.floor((columns * (at.x - x)) / width)];
    const inside = row >= 0 && row < rows && column >= 0 && column < columns;
    if (inside) read(place, [row, column]);
    else read(null);
  }

  function read(place, at = null) {
    if (pointed === place && String(at) === String(square)) return;
    [pointed, square] = [place, at];
    show();
  }

  function show() {
    if (!places.includes(pointed)) [pointed, square] = [null, null];
    for (const element of lit) element.classList.remove("gap-lit");
    const names = links.map((link) => `[data-link~="${link}"]`).join();
    lit = names ? [...root.querySelectorAll(names)] : [];
    for (const element of lit) element.classList.add("gap-lit");
    const { readout } = pointed?.panel ?? {};
    const isThere = readout && square[0] < readout.shape[1] && square[1] < readout.shape[2];
    for (const { svg, over, panel } of places) {
      const marked = lit.length ? [...svg.querySelectorAll(".gap-mark, .gap-frame")].map((mark) => String(boxOf(mark))) : [];
      const boxes = lit
        .filter((element) => element.tagName === "rect" && svg.contains(element))
        .map(boxOf)
        .filter((box) => !marked.includes(String(box))); // a mark is not covered
      const same = isThere && String(panel.readout?.shape.slice(1)) === String(readout.shape.slice(1));
      if (same) boxes.push(squareOf(panel.readout, square));
      if (boxes.length || over.firstChild) over.innerHTML = boxes.map(outline).join("");
    }
    bubble.remove();
    if (!isThere) return;
    bubble.replaceChildren(...linesOf(readout, square).map((line) => make("div", {}, line)));
    const [x, y, width, height] = squareOf(readout, square);
    const [left, top] = [(x + width / 2) / pointed.panel.width, y / pointed.panel.height];
    const below = top < 0.3; // there is more room on that side
    Object.assign(bubble.style, {
      left: `${100 * left}%`,
      top: `${100 * (below ? (y + height) / pointed.panel.height : top)}%`,
      transform: `translate(${-100 * left}%, ${below ? "8px" : "calc(-100% - 8px)"})`,
    });
    pointed.root.append(bubble);
  }
}

const boxOf = (rect) => ["x", "y", "width", "height", "rx"].map((name) => Number(rect.getAttribute(name)));

function squareOf({ box: [x, y, width, height], shape: [, rows, columns] }, [row, column]) {
  return [x + (column * width) / columns, y + (row * height) / rows, width / columns, height / rows];
}

/** Draw a frame that is seen on every colour. */
function outline([x, y, width, height, rx = 0]) {
  const place = `x="${x}" y="${y}" width="${width}" height="${height}" rx="${rx}"`;
  return `<rect ${place} class="gap-outline-below"/><rect ${place} class="gap-outline"/>`;
}

/** Say where a square is, and the numbers there. */
function linesOf({ shape: [, rows, columns], names, levels }, [row, column]) {
  const numbers = new DataView(levels.buffer, levels.byteOffset);
  const said = names.map((name, n) => {
    const number = numbers.getFloat32(4 * ((n * rows + row) * columns + column), true);
    const written = Number.isNaN(number) ? "no number" : String(Number(number.toPrecision(4)));
    return (name && `${name}: `) + written.replace("Infinity", "inf").replace("e+", "e"); // as Python does
  });
  return [`row ${row}, column ${column}`, ...said];
}

/** Put fields to type over the squares that they are for, and give them the same links. */
function placeFields(grid, name, places) {
  const squaresIn = ({ svg }) => [...svg.querySelectorAll(`[data-focus="${name}"]`)];
  const place = places.find((one) => squaresIn(one).length) ?? places[0];
  if (!place) return;
  if (grid.parentElement !== place.root) place.root.append(grid);
  const squares = squaresIn(place);
  const fields = [...grid.children].slice(0, squares.length); // there may be more, or fewer, for a moment
  fields.forEach((input, n) => {
    const { link = "" } = squares[n].dataset;
    if (input.dataset.link !== link) input.dataset.link = link;
  });
  const boxes = squares.map(boxOf);
  const placed = `${fields.length} ${boxes}`;
  if (grid.dataset.placed === placed) return;
  grid.dataset.placed = placed;
  fields.forEach((input, n) => {
    const fontSize = `max(13px, ${(36 * boxes[n][3]) / place.panel.width}cqw)`;
    Object.assign(input.style, { ...placeOn(place.panel, boxes[n]), fontSize });
  });
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
    const [root, bringInLine] = CONTROLS[control.kind](lab, control, (value) => lab.move({ [control.name]: value }));
    root.classList.add("gap-control", `gap-${control.kind}`);
    for (const event of ["focusin", "pointerenter"]) root.addEventListener(event, () => lab.takeInHand(control));
    return { control, root, bringInLine };
  });
  const rootsOf = (test) => made.filter(({ control }) => test(control)).map(({ root }) => root);
  const grids = made.filter(({ control }) => control.kind === "numbers");
  const [play, bringPlayInLine] = makePlayButton(lab);
  const [above, panels] = [make("div", { class: "gap-panels" }), make("div", { class: "gap-panels" })];
  const status = make("p", { class: "gap-status", role: "status" });
  const room = make("div", { "aria-hidden": "true" });
  const large = make("p");
  const words = make("div", { "aria-live": "polite" });
  const problem = make("div", { class: "gap-problem", role: "alert" });
  const text = make("p", { class: "gap-hidden" });
  const root = make("div", { class: "gap-lab", role: "group", "aria-label": name },
    make("div", { class: "gap-body" },
      make("div", { class: "gap-controls" },
        make("div", { class: "gap-main" }, ...rootsOf(({ main }) => main)),
        make("div", { class: "gap-more" }, play, ...rootsOf(({ main, kind }) => !main && kind !== "numbers"))),
      make("div", { class: "gap-view" },
        status, above, panels, make("div", { class: "gap-words" }, room, words, problem))),
    text);
  const places = [];
  let [shown, changedAt] = [lab.frame, -Infinity];
  const end = new AbortController();
  const showPointed = makeTouchable(root, lab, places, focusOn, end.signal);

  /** Go on with the keyboard where the pointer has been. */
  function focusOn(name, n = 0) {
    const { control, root } = made.find(({ control }) => control.name === name);
    const inputs = root.querySelectorAll(control.style === "radio" ? ":checked" : "input:not([type=search]), select");
    inputs[n]?.focus({ preventScroll: true });
    if (control.kind === "numbers") inputs[n]?.select();
  }

  function follow() {
    const { frame } = lab;
    const now = performance.now();
    const isCalm = now - changedAt > CALM && !matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (frame !== shown) [shown, changedAt] = [frame, now];
    for (const { control, root: place, bringInLine } of made) {
      const limits = frame.limits[control.name] ?? {};
      bringInLine(lab.wanted[control.name], limits);
      place.classList.toggle("gap-away", Boolean(limits.hidden));
    }
    bringPlayInLine();
    const kinds = (all) => all.map(({ above }) => above).join();
    if (kinds(frame.panels) !== kinds(places.map(({ panel }) => panel))) {
      for (const { root: old } of places.splice(0)) old.remove(); // such as with a second photograph
    }
    frame.panels.forEach((panel, n) => {
      if (!places[n]) (panel.above ? above : panels).append((places[n] = makePlace()).root);
      drawPanel(places[n], panel, lab.palettes, isCalm);
    });
    for (const { control, root: grid } of grids) placeFields(grid, control.name, places);
    showPointed();
    const waits = lab.waiting && (lab.isStale() || lab.progress > 0 || lab.isPressed());
    say(status, waits ? lab.waits : frame.note ?? "");
    root.classList.toggle("gap-stale", lab.gone || waits);
    root.classList.toggle("gap-plain", !frame.panels.length);
    if (frame.large.length) writePieces(large, frame.large);
    else large.remove();
    write(words, frame.words, frame.large.length ? [large] : []);
    words.className = [frame.large.length && "gap-large", frame.verdict && `gap-${frame.verdict}`].filter(Boolean).join(" ");
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
  return () => (end.abort(), unsubscribe(), root.remove());
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

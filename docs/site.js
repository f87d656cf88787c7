// @ts-check
/**
 * What a page of the site does by itself: it brings labs and questions to life, opens what a
 * question hides when it is answered, and counts the last quiz.
 */

import { openLab } from "./page.js";

const AHEAD = "1000px"; // so far from view a lab fetches its frames
const STAYS = 1000; // milliseconds; arrow keys choose each answer on their way to another
const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;

const opened = [...document.querySelectorAll(".gap-on-page")].map((el) => ({ el, ...openLab(el) }));
const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    opened.find(({ el }) => el === target).load();
  }
}, { rootMargin: AHEAD });
for (const { el } of opened) watcher.observe(el);

for (const { el, lab } of opened) {
  const hidden = hiddenBehind(el);
  lab.subscribe(() => {
    if (lab.frame.verdict) for (const details of hidden.splice(0)) details.open = true;
  });
}

const start = opened.find(({ el }) => el.parentElement.matches(".gap-start"));
if (start && !isCalm) start.load().then(() => start.lab.play());

const score = document.querySelector(".gap-score");
if (score) countQuiz(opened.filter(({ el }) => el.dataset.lesson), score);

/** The folded outputs of the cells that answer a question: those right behind it. */
function hiddenBehind(el) {
  const found = [];
  let cell = el.closest(".cell")?.nextElementSibling;
  for (; cell?.matches(".tag_reveal"); cell = cell.nextElementSibling) {
    found.push(...cell.querySelectorAll("details"));
  }
  return found;
}

/** Count the first tries, as `Quiz` in quiz.py does: of each question, the answer that stays. */
function countQuiz(questions, place) {
  const first = questions.map(() => null);
  const chosen = questions.map(() => -Infinity);
  questions.forEach(({ lab }, n) => {
    let answer = null;
    lab.subscribe(() => {
      if (lab.frame.fields.answer === answer) return;
      answer = lab.frame.fields.answer;
      const now = performance.now();
      if (first[n] !== null && now - chosen[n] >= STAYS) return;
      first[n] = lab.frame.verdict;
      chosen[n] = now;
      write();
    });
  });
  write();

  function write() {
    const tries = first.filter(Boolean);
    const right = tries.filter((verdict) => verdict === "right").length;
    const wrong = new Map();
    first.forEach((verdict, n) => {
      const { lesson } = questions[n].el.dataset;
      if (verdict === "wrong") wrong.set(lesson, [...(wrong.get(lesson) ?? []), n + 1]);
    });
    const again = [...wrong].sort().map(([lesson, numbers]) =>
      `lesson ${lesson} (question${numbers.length > 1 ? "s" : ""} ${join(numbers)})`);
    const said = again.length ? `Look again at ${join(again)}.` : "Only the first try counts.";
    const line = `${tries.length} of ${questions.length} answered, ${right} right at the first try.`;
    place.replaceChildren(paragraph(line), paragraph(said));
  }
}

function paragraph(words) {
  return Object.assign(document.createElement("p"), { textContent: words });
}

function join(parts) {
  const last = parts.at(-1);
  return parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${last}` : String(last);
}

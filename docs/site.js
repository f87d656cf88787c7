// @ts-check
/**
 * What a page of the site does by itself: it brings labs and questions to life, opens what a
 * question hides when it is answered, counts the last quiz, and is printed in its light theme.
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

for (const summary of document.querySelectorAll("nav summary")) { // the theme gives them no name
  summary.ariaLabel = `Pages of ${summary.parentElement.previousElementSibling.textContent}`;
}

for (const summary of document.querySelectorAll("details.hide > summary")) {
  summary.removeAttribute("aria-label"); // "Toggle hidden content", in place of its own words
}

const page = document.documentElement.dataset;
let theme = page.theme;
addEventListener("beforeprint", () => {
  theme = page.theme;
  page.theme = "light";
});
addEventListener("afterprint", () => (page.theme = theme));

/** The folded outputs of the cells that answer a question: up to where its answer can be read. */
function hiddenBehind(el) {
  const found = [];
  const isPast = (next) =>
    next.matches("section, details, .tag_question, .tag_exercise") || next.querySelector(".gap-on-page");
  let next = el.closest(".cell")?.nextElementSibling;
  for (; next && !isPast(next); next = next.nextElementSibling) {
    if (next.matches(".tag_reveal")) found.push(...next.querySelectorAll("details"));
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
    const again = [...wrong].sort().map(([lesson, numbers]) => [
      linkTo(lesson),
      ` (question${numbers.length > 1 ? "s" : ""} `,
      ...join(numbers),
      ")",
    ]);
    const said = again.length ? ["Look again at ", ...join(again), "."] : ["Only the first try counts."];
    const line = `${tries.length} of ${questions.length} answered, ${right} right at the first try.`;
    place.replaceChildren(paragraph(line), paragraph(...said));
  }
}

/** A lesson, as the list of pages links to it. */
function linkTo(lesson) {
  const { href } = document.querySelector(`nav a[href^="${lesson}_"]`) ?? location;
  return Object.assign(document.createElement("a"), { href, textContent: `lesson ${lesson}` });
}

function paragraph(...parts) {
  const made = document.createElement("p");
  made.append(...parts);
  return made;
}

/** Parts, each of them one thing or a list, with commas and an "and" between. */
function join(parts) {
  const between = (n) => (n === 0 ? [] : [n === parts.length - 1 ? " and " : ", "]);
  return parts.flatMap((part, n) => [...between(n), ...[part].flat()]);
}

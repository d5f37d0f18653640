// Keeps a page fresh without loading it again. Everything works without this file too.
//
// What may change is marked in the page: an element with an id and "data-live" is replaced when a
// newer page has it differently. "next" is the only place that knows where news comes from: it
// waits and then gives the page as it is now; a stream of events would take its place.

const EVERY_MS = 3000;
const LONGEST_MS = 30000;
const NEWS_LENGTH = 200;

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

const shown = () =>
  document.hidden
    ? new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }))
    : Promise.resolve();

async function next(ms) {
  await wait(ms);
  await shown();
  const answer = await fetch(location.href, {
    headers: { "X-Live": "1" },
    credentials: "same-origin",
    redirect: "error",
    cache: "no-store",
  });
  if (answer.status === 401) location.assign("/sign-in");
  if (!answer.ok) throw new Error(String(answer.status));
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function states(root) {
  const found = new Map();
  for (const each of root.querySelectorAll("[data-state]")) {
    found.set(each.id, [each.dataset.name, each.dataset.state]);
  }
  return found;
}

// Somebody who is choosing in a form is not disturbed.
const inUse = (part) =>
  part.contains(document.activeElement) &&
  document.activeElement.matches("input, select, textarea");

function put(part, fresh) {
  if (!fresh || part.isEqualNode(fresh) || inUse(part)) return;
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  part.replaceWith(fresh);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function say(before, after) {
  const news = [];
  for (const [id, [name, state]] of after) {
    const old = before.get(id);
    if (old && old[1] !== state) news.push(`${name} is ${state}`);
  }
  if (news.length) {
    document.getElementById("hear").textContent = news.join(", ").slice(0, NEWS_LENGTH);
  }
}

function take(fresh) {
  const before = states(document);
  for (const part of document.querySelectorAll("[data-live][id]")) {
    put(part, fresh.getElementById(part.id));
  }
  say(before, states(document));
}

async function follow() {
  let ms = EVERY_MS;
  for (;;) {
    try {
      take(await next(ms));
      ms = EVERY_MS;
      document.getElementById("gone").hidden = true;
    } catch {
      ms = Math.min(ms * 2, LONGEST_MS);
      document.getElementById("gone").hidden = false;
    }
  }
}

if (document.querySelector("[data-live]")) follow();

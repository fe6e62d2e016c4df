// Renews the page's main part each second. Without this script the page
// reloads itself instead.
"use strict";
(() => {
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  const button = document.createElement("button");
  let paused = false;
  let last = new Date();

  const clock = () => last.toISOString().slice(11, 19) + " UTC";

  function tell() {
    const stale = document.body.classList.contains("is-stale");
    live.className = stale ? "stale" : "";
    live.textContent = stale ? "no answer since " + clock() + ", this is how it was then"
      : paused ? "paused, as of " + clock() : "live, as of " + clock();
    live.append(button);
    button.textContent = paused ? "resume" : "pause";
  }

  // Whoever is about to copy something must not lose it.
  const selecting = () => !getSelection().isCollapsed && main.contains(getSelection().anchorNode);

  function show(html) {
    const before = [...main.querySelectorAll(".wide")].map((e) => e.scrollLeft);
    main.innerHTML = html; // made by workerd, which has escaped what is not its own
    [...main.querySelectorAll(".wide")].forEach((e, i) => { e.scrollLeft = before[i] || 0; });
  }

  async function renew() {
    try {
      const answer = await fetch("/?part=main", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(answer.statusText);
      const html = await answer.text();
      if (paused || selecting()) return;
      show(html);
      last = new Date();
      document.body.classList.remove("is-stale");
    } catch {
      document.body.classList.add("is-stale");
    }
  }

  async function loop() {
    if (!paused && !document.hidden && !selecting()) {
      await renew();
      tell();
    }
    setTimeout(loop, 1000);
  }

  button.type = "button";
  button.addEventListener("click", () => { paused = !paused; tell(); });
  tell();
  setTimeout(loop, 1000);
})();

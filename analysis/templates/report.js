// The animation is a table of all steps; this plays it. Without JavaScript the table stands as it is.
(() => {
  const strategies = [...document.querySelectorAll(".animation")].map((figure) => ({
    steps: [...figure.querySelectorAll("g.step")],
    now: figure.querySelector(".now"),
  }));
  const longest = Math.max(...strategies.map((s) => s.steps.length));
  const counter = document.getElementById("counter");
  const play = document.getElementById("play");
  let at = longest; // steps shown
  let timer = null;

  const show = () => {
    for (const { steps, now } of strategies) {
      const last = Math.min(at, steps.length);
      steps.forEach((step, i) => {
        step.classList.toggle("later", i >= last);
        step.classList.toggle("now", i === last - 1 && at < longest);
      });
      const data = last ? steps[last - 1].dataset : { slots: 1, evaluations: 0 };
      now.textContent = at < longest ? `Step ${last}: ${data.slots} stored, ${data.evaluations} evaluations.` : "";
    }
    counter.textContent = at < longest ? `step ${at} of ${longest}` : "";
  };
  const pause = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ play";
  };
  const go = (to) => {
    at = Math.max(0, Math.min(longest, to));
    if (at === longest) pause();
    show();
  };
  play.onclick = () => {
    if (timer) return pause();
    if (at === longest) go(0);
    timer = setInterval(() => go(at + 1), 450);
    play.textContent = "❚❚ pause";
  };
  document.getElementById("step").onclick = () => (pause(), go(at === longest ? 1 : at + 1));
  document.getElementById("back").onclick = () => (pause(), go(at - 1));
  document.getElementById("all").onclick = () => (pause(), go(longest));
  document.querySelector(".controls").hidden = false;
})();

"use strict";
// The gate for other thresholds, from the embedded facts. A limit of null is no limit; a missing value holds.
function holds(slider, limit, value) {
  if (limit === null || value === null) return true;
  return slider.atLeast ? Number(value) >= limit : Number(value) <= limit;
}
function evaluate(facts, limits) {
  const ok = (values) => facts.sliders.every((slider, n) => holds(slider, limits[n], values[n]));
  const segments = facts.segments.map((segment) => segment.attempted >= 1 && ok(segment.values));
  // Segments that fail are left out: one that passes opens the gate.
  const kept = facts.onlyPassing ? segments.some(Boolean) : ok(facts.worst);
  return { open: facts.others === 0 && kept, segments: segments };
}
function start(document) {
  const facts = JSON.parse(document.getElementById("gate-facts").textContent);
  const inputs = facts.sliders.map((_, n) => document.getElementById("slider-" + n));
  const result = document.getElementById("gate-result");
  const shown = document.querySelectorAll("#gate-segments li");
  function limits() {
    return inputs.map((input, n) => {
      const unlimited = document.getElementById("unlimited-" + n);
      const isOff = unlimited !== null && unlimited.checked;
      input.disabled = isOff;
      // An untouched slider is the threshold as it was: a slider's steps would round it.
      return isOff ? null : Number(input.dataset.touched ? input.value : input.dataset.limit);
    });
  }
  function update() {
    const now = limits();
    const found = evaluate(facts, now);
    now.forEach((limit, n) => {
      const text = limit === null ? "no limit" : String(Number(limit.toPrecision(4)));
      document.getElementById("value-" + n).textContent = text;
    });
    const passing = found.segments.filter(Boolean).length;
    const of = facts.segments.length ? " " + passing + " of " + facts.segments.length + " segments would pass." : "";
    result.textContent = facts.others
      ? "The gate would stay closed: no slider opens it, because another expectation failed." + of
      : "The gate would be " + (found.open ? "open." : "closed.") + of;
    result.className = "verdict " + (found.open ? "good" : "bad");
    shown.forEach((item, n) => {
      item.className = found.segments[n] ? "good" : "bad";
      item.querySelector("span").textContent = found.segments[n] ? "✓" : "✗";
    });
  }
  inputs.forEach((input, n) => {
    input.addEventListener("input", () => { input.dataset.touched = "1"; update(); });
    const unlimited = document.getElementById("unlimited-" + n);
    if (unlimited !== null) unlimited.addEventListener("change", update);
  });
  update();
}
if (typeof document !== "undefined" && document.getElementById("gate-facts")) start(document);

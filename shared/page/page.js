"use strict";
(() => {
  const tip = document.getElementById("tip");
  const shown = (value) => value === null ? "-" : String(value);

  function place(x, y) {
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 4)) + "px";
    tip.style.top = Math.max(4, y + 14 + box.height > innerHeight ? y - box.height - 10 : y + 14) + "px";
  }
  function say(title, rows, x, y) {
    const bold = document.createElement("b");
    bold.textContent = title;
    tip.replaceChildren(bold, ...rows.map(([label, colour, text]) => {
      const line = document.createElement("span"), name = document.createElement("span");
      name.className = "c" + colour;
      name.style.display = "inline";
      name.textContent = label + " ";
      line.append(name, text);
      return line;
    }));
    tip.hidden = false;
    place(x, y);
  }
  const hide = () => { tip.hidden = true; };

  let picked = "";
  const drawers = [];
  for (const figure of document.querySelectorAll("figure.chart")) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const svg = figure.querySelector("svg"), cursor = figure.querySelector(".cursor");
    let at = data.rounds.length - 1;
    const layer = svg.querySelector("g.picked");
    if (layer) drawers.push(() => {
      const row = data.rows.find(([label, , style]) => style === "picked" && label === picked);
      const parts = [[]], [low, start, one] = data.y;
      (row ? row[3] : []).forEach((value, place) => {
        if (value === null) parts.push([]);
        else parts.at(-1).push(data.x[place] + "," + (start + (value - low) * one).toFixed(1));
      });
      layer.replaceChildren(...parts.filter((part) => part.length).map((part) => {
        const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
        line.setAttribute("points", (part.length > 1 ? part : [part[0], part[0]]).join(" "));
        return line;
      }));
    });
    const read = (index, x, y) => {
      at = Math.max(0, Math.min(index, data.rounds.length - 1));
      const rows = data.rows.filter(([label, , style]) => style !== "picked" || label === picked)
        .map(([label, colour, , values]) => [label, colour % 8, shown(values[at])]);
      const box = svg.getBoundingClientRect();
      cursor.setAttribute("x1", data.x[at]);
      cursor.setAttribute("x2", data.x[at]);
      cursor.style.visibility = "visible";
      say(data.across + " " + data.rounds[at], rows, x ?? box.left + data.x[at] * box.width / 400, y ?? box.top + box.height / 3);
    };
    const leave = () => { cursor.style.visibility = "hidden"; hide(); };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) * 400 / box.width;
      const distances = data.x.map((place) => Math.abs(place - x));
      read(distances.indexOf(Math.min(...distances)), event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", leave);
    figure.addEventListener("focus", () => { if (figure.matches(":focus-visible")) read(at); });
    figure.addEventListener("blur", leave);
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (step !== undefined) { event.preventDefault(); read(at + step); }
      if (event.key === "Escape") leave();
    });
  }

  for (const each of document.querySelectorAll("[data-tip]")) {
    const show = (event) => {
      const box = each.getBoundingClientRect();
      say(each.dataset.name || "", [["", 6, each.dataset.tip]], event.clientX ?? box.left + 20, event.clientY ?? box.bottom);
    };
    each.addEventListener("pointermove", show);
    each.addEventListener("pointerleave", hide);
    each.addEventListener("focus", show);
    each.addEventListener("blur", hide);
  }

  const pickers = document.querySelectorAll("select.pick-site");
  const pick = (site) => {
    picked = site;
    for (const select of pickers) select.value = site;
    for (const draw of drawers) draw();
    for (const name of document.querySelectorAll(".legend .pick")) { name.textContent = site; name.hidden = !site; }
  };
  for (const select of pickers) select.addEventListener("change", () => pick(select.value));
  if (pickers.length) pick(pickers[0].value);

  addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });
  addEventListener("scroll", hide, { passive: true });
})();

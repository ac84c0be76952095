"use strict";
(() => {
  const PAGE_SIZE = 50;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const find = (id) => document.getElementById(id);
  const meta = read("meta");
  const form = find("filters");
  const fields = ["q", "min", "max", "novelty", "status", "warning", "adapted", "task", "weight", "sort", "order"];
  const digits = meta.calibrated ? 1 : 3;

  // Rows: [shared, rest, score, std, novelty, width, height, warnings, weights, raw?] or [shared, rest, reason]. With
  // test-time adaptation raw is always there, and source score, adapted (1 or 0) and number of the note follow.
  const rows = read("data");
  const paths = [];
  let before = "";
  for (const row of rows) {
    before = before.slice(0, row[0]) + row[1];
    paths.push(before);
  }
  const failed = (index) => rows[index].length === 3;
  const value = (index) => failed(index) ? null : (meta.calibrated ? rows[index][2] : rows[index][9]);

  const source = (index) => failed(index) ? null : rows[index][10] ?? null;
  const adapted = (index) => !failed(index) && rows[index][11] === 1;
  const move = (index) => adapted(index) && source(index) !== null && value(index) !== null ? value(index) - source(index) : null;

  const keys = {
    score: value,
    source,
    move,
    std: (index) => failed(index) ? null : rows[index][3],
    novelty: (index) => failed(index) ? null : rows[index][4],
    size: (index) => failed(index) || rows[index][5] === null ? null : rows[index][5] * rows[index][6],
  };
  const weight = (index, task) => failed(index) ? null : rows[index][8][task] ?? 0;

  const state = () => Object.fromEntries(fields.map((name) => [name, form.elements[name] ? form.elements[name].value : ""]));

  function matching(wanted) {
    const tests = [];
    if (wanted.q) {
      const part = wanted.q.toLowerCase();
      tests.push((index) => paths[index].toLowerCase().includes(part));
    }
    const atLeast = (text, key) => {
      if (text !== "" && Number.isFinite(Number(text))) {
        const limit = Number(text);
        tests.push((index) => { const found = key(index); return typeof found === "number" && found >= limit; });
      }
    };
    atLeast(wanted.min, value);
    if (wanted.max !== "" && Number.isFinite(Number(wanted.max))) {
      const limit = Number(wanted.max);
      tests.push((index) => { const found = value(index); return typeof found === "number" && found <= limit; });
    }
    atLeast(wanted.novelty, keys.novelty);
    if (wanted.status) tests.push((index) => failed(index) === (wanted.status === "failed"));
    if (wanted.warning === "*") tests.push((index) => !failed(index) && rows[index][7].length > 0);
    else if (wanted.warning === "-") tests.push((index) => !failed(index) && rows[index][7].length === 0);
    else if (wanted.warning) {
      const number = meta.warnings.indexOf(wanted.warning);
      tests.push((index) => !failed(index) && rows[index][7].includes(number));
    }
    if (wanted.adapted) tests.push((index) => !failed(index) && adapted(index) === (wanted.adapted === "yes"));
    if (wanted.task) {
      const task = meta.tasks.indexOf(wanted.task);
      const least = wanted.weight === "" || !Number.isFinite(Number(wanted.weight)) ? 50 : Number(wanted.weight);
      tests.push((index) => { const found = weight(index, task); return found !== null && found * 100 >= least; });
    }
    const found = [];
    for (let index = 0; index < rows.length; index++) if (tests.every((test) => test(index))) found.push(index);
    return found;
  }

  function sorted(found, wanted) {
    const sign = wanted.order === "desc" ? -1 : 1;
    if (!wanted.sort) return sign < 0 ? found.reverse() : found;
    if (wanted.sort === "name") {
      const compare = new Intl.Collator("en", { numeric: true }).compare;
      return found.sort((a, b) => sign * compare(paths[a], paths[b]) || a - b);
    }
    const key = wanted.sort.startsWith("weight:")
      ? ((task) => (index) => weight(index, task))(meta.tasks.indexOf(wanted.sort.slice(7)))
      : keys[wanted.sort];
    // What has no such figure comes last, whatever the order.
    return found.sort((a, b) => {
      const x = key(a) ?? null, y = key(b) ?? null;
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (x - y) || a - b;
    });
  }

  const visible = (text) => text.replace(
    /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu,
    (mark) => "\\u{" + mark.codePointAt(0).toString(16) + "}");

  // A byte of a name that is no text came as a lone surrogate.
  const encode = (path) => path.replace(/\p{Cs}|[^\p{Cs}]+/gu, (part) => /^\p{Cs}$/u.test(part)
    ? "%" + (part.charCodeAt(0) & 0xff).toString(16)
    : encodeURIComponent(part).replaceAll("%2F", "/"));

  function address(path) {
    if (/^[A-Za-z]:[\\/]/.test(path)) return "file:///" + encode(path.replaceAll("\\", "/")).replace("%3A", ":");
    if (path.startsWith("/")) return "file://" + encode(path);
    return meta.base === null ? null : meta.base + "/" + encode(path);
  }

  function make(name, text, properties) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return Object.assign(made, properties);
  }

  function cell(className, label, ...inside) {
    const made = make("td", undefined, { className });
    made.setAttribute("role", "cell");
    if (label) made.dataset.label = label;
    made.append(...inside);
    return made;
  }

  const fixed = (number, places) => typeof number === "number" ? number.toFixed(places) : "–";

  function moved(index) {
    const by = move(index);
    return by === null ? [] : [" ", make("small", (by < 0 ? "−" : "+") + Math.abs(by).toFixed(digits))];
  }

  function drawn(index) {
    const row = rows[index], shown = visible(paths[index]), line = make("tr");
    line.setAttribute("role", "row");
    const link = address(paths[index]);
    const end = Math.max(paths[index].lastIndexOf("/"), paths[index].lastIndexOf("\\")) + 1;
    const name = make("bdi"), text = visible(paths[index].slice(end)) || shown;
    name.append(link === null ? text : make("a", text, { href: link, target: "_blank", rel: "noopener", title: shown }));
    line.append(cell("path", "", name, ...(end && end < paths[index].length ? [make("small", visible(paths[index].slice(0, end)))] : [])));
    if (failed(index)) {
      const reason = cell("reason", "", make("span", "failed", { className: "chip bad" }), " " + visible(row[2]));
      reason.colSpan = 5 + (meta.tasks.length > 0) + 2 * (meta.notes !== undefined);
      line.append(reason);
      return line;
    }
    line.append(
      cell("number", meta.calibrated ? "score" : "raw", make("b", fixed(value(index), digits))),
      ...(meta.notes ? [cell("number", "source", fixed(source(index), digits), ...moved(index))] : []),
      cell("number", "±", fixed(row[3], 1)),
      cell("number", "novelty", fixed(row[4], 2)),
      cell("number size", "size", typeof row[5] === "number" ? row[5] + " × " + row[6] : "–"));
    if (meta.tasks.length) {
      const shares = meta.tasks.map((task, number) => [visible(task), weight(index, number)]).sort((a, b) => b[1] - a[1]);
      const counted = shares.filter(([, part]) => part >= 0.005), rest = counted.slice(2).reduce((sum, [, part]) => sum + part, 0);
      const named = [...counted.slice(0, 2), ...(counted.length > 2 ? [["others", rest]] : [])];
      const parts = named.map(([task, part]) => make("span", task + " " + Math.round(part * 100) + " %"));
      line.append(cell("weights", "", ...parts.flatMap((part, number) => number ? [" · ", part] : [part])));
    }
    if (meta.notes) {
      const state = adapted(index) ? [] : [make("span", "not adapted", { className: "chip" }), " "];
      line.append(cell("adaptation", "", ...state, meta.notes[row[12]] ?? ""));
    }
    line.append(cell("warnings", "", ...row[7].map((number) => make("span", meta.warnings[number], { className: "chip" }))));
    return line;
  }

  let shown = [], page = 1;
  const pages = () => Math.max(1, Math.ceil(shown.length / PAGE_SIZE));

  function draw() {
    page = Math.min(Math.max(page, 1), pages());
    const start = (page - 1) * PAGE_SIZE, part = shown.slice(start, start + PAGE_SIZE);
    find("rows").tBodies[0].replaceChildren(...part.map(drawn));
    const many = (count) => count.toLocaleString("en");
    find("matches").textContent = shown.length === 0
      ? "No image matches; " + many(rows.length) + " in the table."
      : many(start + 1) + "–" + many(start + part.length) + " of " + many(shown.length)
        + (shown.length === rows.length ? " images" : " that match; " + many(rows.length) + " in the table");
    find("page").textContent = "page " + many(page) + " of " + many(pages());
    find("before").disabled = page <= 1;
    find("after").disabled = page >= pages();
    const wanted = state();
    for (const heading of document.querySelectorAll("#rows th[data-sort]")) {
      if (heading.dataset.sort === wanted.sort) {
        heading.setAttribute("aria-sort", wanted.order === "desc" ? "descending" : "ascending");
      } else heading.removeAttribute("aria-sort");
    }
  }

  function update() {
    const wanted = state();
    shown = sorted(matching(wanted), wanted);
    draw();
  }

  // The address after # says what is shown, so that it can be kept or sent.
  function remember() {
    const kept = new URLSearchParams();
    for (const [name, text] of Object.entries(state())) if (text !== "") kept.set(name, text);
    if (page > 1) kept.set("page", page);
    if (document.documentElement.dataset.theme) kept.set("theme", document.documentElement.dataset.theme);
    try {
      history.replaceState(null, "", "#" + (kept.size ? kept : "images"));
    } catch { /* some viewers forbid it; the table works all the same */ }
  }

  function colour(theme) {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    find("theme").value = document.documentElement.dataset.theme ?? "";
  }

  function recall() {
    const hash = location.hash.slice(1);
    if (!hash.includes("=")) return false; // a section of the page
    const kept = new URLSearchParams(hash);
    for (const name of fields) if (form.elements[name]) form.elements[name].value = kept.get(name) ?? "";
    if (kept.has("theme")) colour(kept.get("theme"));
    page = Number.parseInt(kept.get("page"), 10) || 1;
    return [...kept.keys()].some((name) => name !== "theme");
  }

  let waiting;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { page = 1; update(); remember(); }, 120);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { page = 1; update(); remember(); }));
  for (const [id, step] of [["before", -1], ["after", 1]]) {
    find(id).addEventListener("click", () => { page += step; draw(); remember(); });
  }
  for (const heading of document.querySelectorAll("#rows th[data-sort]")) {
    heading.firstElementChild.addEventListener("click", () => {
      const again = form.elements.sort.value === heading.dataset.sort;
      form.elements.order.value = again && form.elements.order.value === "" ? "desc" : "";
      form.elements.sort.value = heading.dataset.sort;
      page = 1;
      update();
      remember();
    });
  }
  // On a phone a sheet begins with its first eight.
  for (const more of document.querySelectorAll(".more")) {
    const sheet = more.previousElementSibling;
    if (sheet.children.length <= 8) continue;
    sheet.classList.add("short");
    more.hidden = false;
    more.addEventListener("click", () => {
      sheet.classList.remove("short");
      more.hidden = true;
      (sheet.children[8].querySelector("a") ?? sheet).focus();
    });
  }
  find("theme").addEventListener("change", (event) => { colour(event.target.value); remember(); });
  addEventListener("hashchange", () => {
    if (!recall()) return;
    update();
    find("images").scrollIntoView();
  });

  for (const part of [form, find("rows"), document.querySelector(".results"), document.querySelector(".theme")]) part.hidden = false;
  const jump = recall();
  update();
  if (jump) find("images").scrollIntoView({ behavior: "instant" });
})();

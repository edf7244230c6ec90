import { afterEach, expect, test, vi } from "vitest";
import { recordedModel } from "../export_host/recorded";
import { useRequest, widget } from "./host";
import { Foot, Status } from "./parts";
import { Term } from "./terms";
import { TokenStrip } from "./tokens";

const TOKENS = [{ text: "Once" }, { text: " upon" }];

function Small() {
  const asked = useRequest("fail", {});
  return (
    <>
      <Status asked={asked} />
      <Term name="L0" />
      <TokenStrip tokens={TOKENS} label="chosen from" onSelect={() => undefined} />
      <TokenStrip tokens={TOKENS} label="pointed at" onHover={() => undefined} describe={(i) => `token ${i}`} />
      <TokenStrip tokens={TOKENS} label="read" />
      <input type="text" />
      <Foot />
    </>
  );
}

function mount() {
  const error = "The prompt is empty. Type at least one character.";
  const model = recordedModel({ _live: false }, [{ method: "fail", params: {}, buffers: [], error }]);
  const el = document.createElement("div");
  document.body.append(el);
  widget(Small, { name: "sw-small", css: "", keys: "j jumps" })().render({ model, el });
  return el;
}

const press = (el: Element, key: string) => el.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));

afterEach(() => document.body.replaceChildren());

test("two widgets on one page have no id in common, and what an id names is found", () => {
  const [one, other] = [mount(), mount()];
  const ids = [one, other].flatMap((el) => [...el.querySelectorAll("[id]")].map(({ id }) => id));
  expect(ids.length).toBeGreaterThan(4);
  expect(new Set(ids).size).toBe(ids.length);
  const described = other.querySelector("[aria-describedby]")!.getAttribute("aria-describedby")!;
  expect(other.contains(document.getElementById(described))).toBe(true);
});

test("no key pressed inside is a command of the notebook, but with Ctrl", () => {
  const root = mount().querySelector<HTMLElement>(".sw-root")!;
  expect(root.className).toBe("sw-root sw-small");
  const heard = vi.fn();
  document.body.addEventListener("keydown", heard);
  for (const key of ["x", "b", "Enter", "Escape", "ArrowDown", "?"]) {
    for (const at of root.querySelectorAll("button, input, [tabindex]")) press(at, key);
  }
  expect(heard).not.toHaveBeenCalled();
  root.querySelector("button")!.dispatchEvent(new KeyboardEvent("keydown", { key: "s", ctrlKey: true, bubbles: true }));
  expect(heard).toHaveBeenCalledTimes(1);
  document.body.removeEventListener("keydown", heard);
});

test("? shows the keys and hides them; typed into a field it is a question mark", async () => {
  const el = mount();
  press(el.querySelector("[role=listbox]")!, "?");
  await vi.waitFor(() => expect(el.textContent).toContain("j jumps"));
  expect(el.querySelector("[aria-expanded=true]")?.textContent).toBe("? keys");
  press(el.querySelector("input")!, "?");
  await new Promise((done) => setTimeout(done, 20));
  expect(el.textContent).toContain("j jumps");
  press(el.querySelector("[role=listbox]")!, "?");
  await vi.waitFor(() => expect(el.textContent).not.toContain("j jumps"));
});

test("a recorded error is the sentence that a kernel would have sent", async () => {
  const el = mount();
  await vi.waitFor(() => expect(el.querySelector("[role=alert]")?.textContent).toBe("The prompt is empty. Type at least one character."));
});

test("tokens have roles only where there is something to do with them", () => {
  const [chosen, pointed, text] = [...mount().querySelectorAll(".sw-tokens")] as [Element, Element, Element];
  const of = (strip: Element, name: string) => [...strip.children].map((token) => token.getAttribute(name));
  expect([chosen.getAttribute("role"), ...of(chosen, "role")]).toEqual(["listbox", "option", "option"]);
  expect(of(chosen, "aria-label")).toEqual(["\u201cOnce\u201d", "\u201c upon\u201d"]);
  expect([pointed.getAttribute("role"), ...of(pointed, "role")]).toEqual(["group", "img", "img"]);
  expect(of(pointed, "aria-label")).toEqual(["token 0", "token 1"]);
  expect([text.getAttribute("tabindex"), ...of(text, "role"), ...of(text, "aria-label"), ...of(text, "id")]).toEqual(Array(7).fill(null));
});

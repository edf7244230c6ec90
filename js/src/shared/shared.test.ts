import { describe, expect, test, vi } from "vitest";
import { activationShade, contrast, opacity, signedShade } from "./colour";
import { alike, count, duration, percent, percentsAlike, short, signed, three } from "./format";
import { glyphs, inQuotes } from "./tokens";
import { float32, keyOf, type Model, Transport } from "./transport";

type Heard = Map<string, (...values: unknown[]) => void>;

function handMadeModel() {
  const heard: Heard = new Map();
  const model = {
    get: () => undefined,
    set: vi.fn(),
    save_changes: vi.fn(),
    on: (event: string, callback: never) => void heard.set(event, callback),
    off: (event: string) => void heard.delete(event),
    send: vi.fn(),
  } satisfies Model;
  return { model, heard, say: (message: unknown, buffers: unknown[] = []) => heard.get("msg:custom")?.(message, buffers) };
}

describe("transport", () => {
  test("answers find their question whatever their order", async () => {
    const { model, say } = handMadeModel();
    const transport = new Transport(model);
    const first = transport.request<string>("a", {});
    const second = transport.request<string>("b", {});
    const [one, two] = model.send.mock.calls.map(([content]) => (content as { id: number }).id);
    say({ kind: "answer", id: two, result: "for b" });
    say({ kind: "answer", id: one, result: "for a" });
    expect((await first).result).toBe("for a");
    expect((await second).result).toBe("for b");
  });

  test("parts that arrive late are dropped", async () => {
    const { model, say } = handMadeModel();
    const seen: unknown[] = [];
    const done = new Transport(model).request("text", {}, ({ result }) => seen.push(result));
    const { id } = model.send.mock.calls[0]![0] as { id: number };
    say({ kind: "part", id, seq: 0, result: "Once" });
    say({ kind: "part", id, seq: 2, result: "Once upon a" });
    say({ kind: "part", id, seq: 1, result: "Once upon" });
    say({ kind: "answer", id, result: "Once upon a time" });
    expect((await done).result).toBe("Once upon a time");
    expect(seen).toEqual(["Once", "Once upon a"]);
  });

  test("an error is its sentence; after dispose nothing is heard and nothing hangs", async () => {
    const { model, heard, say } = handMadeModel();
    const transport = new Transport(model);
    const refused = transport.request("a", {});
    say({ kind: "error", id: (model.send.mock.calls[0]![0] as { id: number }).id, message: "The prompt is empty." });
    await expect(refused).rejects.toThrow("The prompt is empty.");
    const open = transport.request("b", {});
    transport.dispose();
    await expect(open).rejects.toThrow("closed");
    expect(heard.size).toBe(0);
  });

  test("a recorded answer is found whatever the order of its parameters, nulls aside", () => {
    expect(keyOf("m", { b: 1, a: [2], c: null })).toBe(keyOf("m", { a: [2], b: 1 }));
    expect(keyOf("m", { a: 1 })).not.toBe(keyOf("m", { a: 2 }));
  });

  test("numbers are read from a buffer that is not aligned", () => {
    const buffer = new ArrayBuffer(9);
    const view = new DataView(buffer, 1, 8);
    view.setFloat32(0, 1.5, true);
    view.setFloat32(4, -2, true);
    expect([...float32(view)]).toEqual([1.5, -2]);
  });
});

describe("colour", () => {
  test("nothing at zero, more for more, never past the end", () => {
    expect(activationShade(0, 8, "light")).toBeNull();
    expect(activationShade(3, 0, "light")).toBeNull();
    expect(opacity(0.1)).toBeLessThan(opacity(0.5));
    expect(opacity(1)).toBeCloseTo(1);
    expect(opacity(40)).toBe(opacity(1));
    expect(opacity(Number.NaN)).toBe(0);
  });

  test("text stays readable on every step of every scale", () => {
    const rgb = (css: string) => css.match(/\d+/g)!.map(Number) as unknown as [number, number, number];
    for (const theme of ["light", "dark"] as const) {
      for (let step = 1; step <= 20; step++) {
        for (const shade of [activationShade(step, 20, theme), signedShade(step, 20, theme), signedShade(-step, 20, theme)]) {
          expect(contrast(rgb(shade!.background), rgb(shade!.color))).toBeGreaterThan(4.5);
        }
      }
    }
  });
});

describe("numbers", () => {
  test.each([
    [0, "0"],
    [7.912, "7.91"],
    [-0.8, "\u22120.8"],
    [1234.5, "1,235"],
    [0.0000012, "1.2e\u22126"],
    [Number.NaN, "\u2013"],
  ])("three(%f) is %s", (value, text) => expect(three(value)).toBe(text));

  test("the numbers of a column have as many decimals, those of the middle one", () => {
    const column = (values: number[]) => values.map(alike(values));
    expect(column([9, 8.42, 12.61, 0.2, NaN])).toEqual(["9.00", "8.42", "12.61", "0.20", "\u2013"]);
    expect(column([0.108, -0.0948, -0.069])).toEqual(["0.1080", "\u22120.0948", "\u22120.0690"]);
    expect(column([8, 16, 32])).toEqual(["8", "16", "32"]);
    expect(column([12345.6, 2000.1, 0])).toEqual(["12,346", "2,000", "0"]);
    expect(column([5, 6, 7, 0.001])).toEqual(["5.00", "6.00", "7.00", "< 0.01"]);
    expect(column([5, 6, 7, -0.001])).toEqual(["5.00", "6.00", "7.00", "> \u22120.01"]);
    expect(signed(0.001, alike([5, 6, 7, 0.001]))).toBe("< 0.01");
    expect(column([5.5e-5, 5.7e-5])).toEqual(["5.5e\u22125", "5.7e\u22125"]);
    expect(column([])).toEqual([]);
    expect(signed(0.1, alike([0.1]))).toBe("+0.100");
  });
  test("the shares of a column have as many decimals as the rarest asks for", () => {
    const column = (shares: number[]) => shares.map(percentsAlike(shares));
    expect(column([0.0021, 0.014, 0.123, 0])).toEqual(["0.21 %", "1.40 %", "12.30 %", "0.00 %"]);
    expect(column([0.000002, 0.0022])).toEqual(["< 0.001 %", "0.220 %"]);
    expect(column([0, 0, NaN])).toEqual(["0 %", "0 %", "\u2013"]);
    expect(percentsAlike(Float32Array.of(0.01, 0.1))(0.01)).toBe("1.0 %"); // 0.01 as float32 is a little less
  });
  test("shares, counts, times", () => {
    expect(percent(0.0021)).toBe("0.21 %");
    expect(percent(0.314)).toBe("31.4 %");
    expect(percent(0.0000001)).toBe("< 0.001 %");
    expect(count(200000)).toBe("200,000");
    expect(short(412300)).toBe("412k");
    expect(signed(2)).toBe("+2");
    expect(duration(200)).toBe("3 min 20 s");
  });
});

describe("tokens", () => {
  test("a plain token is its text, spaces on demand", () => {
    expect(glyphs({ text: " bridge" }, false)).toBe(" bridge");
    expect(glyphs({ text: " a b" }, true)).toBe("\u00b7a\u00b7b");
  });

  test("what has no shape is named, markup stays text", () => {
    expect(inQuotes({ text: "\n" })).toBe("\u201c\u21b5\u201d");
    expect(inQuotes({ text: "\u202e" })).toBe("\u201cU+202E\u201d");
    expect(inQuotes({ text: "C3", hex: true })).toBe("<0xC3>");
    expect(inQuotes({ text: "<script>" })).toBe("\u201c<script>\u201d");
  });
});

// Numbered requests over custom messages (the protocol stands in saewidgets/widgets/_base.py). One transport a model;
// `initialize` makes it and takes it down. Messages may arrive out of order: parts carry a number, late ones are dropped.

export type Params = Record<string, unknown>;

/** What a notebook host gives a view. */
export interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(event: string, callback: (...values: never[]) => void): void;
  off(event: string, callback: (...values: never[]) => void): void;
  send(content: unknown): void;
}

export interface Answer<Result> {
  result: Result;
  buffers: DataView[];
}

interface Open {
  resolve: (answer: Answer<never>) => void;
  reject: (reason: Error) => void;
  onPart: ((part: Answer<never>) => void) | undefined;
  seq: number;
}

interface Message {
  kind: "part" | "answer" | "error" | "refused";
  id: number;
  seq?: number;
  result?: unknown;
  message?: string;
}

export class Transport {
  private readonly open = new Map<number, Open>();
  private readonly refusals = new Set<(message: string) => void>();
  // Two browser windows on one kernel hear each other's answers: numbers start at random places.
  private next = Math.floor(Math.random() * 2 ** 30);
  private readonly receive = (message: Message, buffers: DataView[] = []) => this.onMessage(message, buffers);

  constructor(private readonly model: Model) {
    model.on("msg:custom", this.receive);
  }

  /** Asks the kernel (or the recorded answers). Rejects with the sentence to show. */
  request<Result>(method: string, params: Params, onPart?: (part: Answer<Result>) => void): Promise<Answer<Result>> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.open.set(id, { resolve: resolve as Open["resolve"], reject, onPart: onPart as Open["onPart"], seq: -1 });
      this.model.send({ kind: "request", id, method, params });
    });
  }

  /** Hears what the kernel refused of what the browser set. */
  onRefused(callback: (message: string) => void): () => void {
    this.refusals.add(callback);
    return () => this.refusals.delete(callback);
  }

  dispose(): void {
    this.model.off("msg:custom", this.receive);
    for (const { reject } of this.open.values()) reject(new Error("This view was closed."));
    this.open.clear();
    this.refusals.clear();
  }

  private onMessage(message: Message, buffers: DataView[]): void {
    if (message.kind === "refused") {
      for (const hear of this.refusals) hear(message.message ?? "");
      return;
    }
    const open = this.open.get(message.id);
    if (!open) return;
    const answer = { result: message.result as never, buffers };
    if (message.kind === "part") {
      if ((message.seq ?? 0) <= open.seq) return;
      open.seq = message.seq ?? 0;
      open.onPart?.(answer);
      return;
    }
    this.open.delete(message.id);
    if (message.kind === "error") open.reject(new Error(message.message));
    else open.resolve(answer);
  }
}

/** The name under which an answer is recorded: the method and its parameters, keys sorted, nulls left out. */
export function keyOf(method: string, params: Params): string {
  const named = Object.entries(params).filter(([, value]) => value !== null && value !== undefined);
  named.sort(([a], [b]) => (a < b ? -1 : 1));
  return `${method} ${JSON.stringify(named)}`;
}

// Buffers arrive as DataViews at unaligned offsets: copy before reading them as numbers.
export function float32(view: DataView | undefined): Float32Array {
  return view ? new Float32Array(copy(view)) : new Float32Array();
}

export function int32(view: DataView | undefined): Int32Array {
  return view ? new Int32Array(copy(view)) : new Int32Array();
}

export function uint16(view: DataView | undefined): Uint16Array {
  return view ? new Uint16Array(copy(view)) : new Uint16Array();
}

export function bytes(view: DataView | undefined): Uint8Array {
  return view ? new Uint8Array(copy(view)) : new Uint8Array();
}

function copy(view: DataView): ArrayBuffer {
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) as ArrayBuffer;
}

// Numbers as they are read: three significant digits, grouped counts, units beside them.

const MINUS = "\u2212";

/** Three significant digits: 0.0123, 4.57, 123, 1,230, 1.2e-7. */
export function three(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (!Number.isFinite(value)) return value > 0 ? "\u221e" : `${MINUS}\u221e`;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-4) return value.toExponential(1).replace("-", MINUS);
  const text = size >= 1000 ? count(Math.round(size)) : Number(size.toPrecision(3)).toString();
  return value < 0 ? MINUS + text : text;
}

/** As `three` or as its column, with a plus where it is positive. */
export function signed(value: number, format: (value: number) => string = three): string {
  const text = format(value);
  return value > 0 && !text.startsWith("<") ? `+${text}` : text;
}

type Format = (value: number | null | undefined) => string;

/** The numbers of a column, to be compared down it: all with as many decimals as give the middle one (of two, the larger)
 * three significant digits, none where all are whole. */
export function alike(values: ArrayLike<number>): Format {
  const sizes = sizesOf(values);
  const middle = sizes[sizes.length >> 1];
  if (middle === undefined || middle < 1e-4) return three;
  return withDecimals(sizes.every(Number.isInteger) ? 0 : decimalsOf(middle, 3));
}

/** As `alike`, for shares as percentages: the rarest keeps two significant digits, above 0.001 %. */
export function percentsAlike(shares: ArrayLike<number>): Format {
  const least = sizesOf(shares)[0];
  const format = withDecimals(least === undefined ? 0 : Math.min(3, decimalsOf(least * 100, 2)));
  return (share) => (Number.isFinite(share) ? `${format(share! * 100)} %` : percent(share));
}

/** The sizes of those that are neither zero nor missing, smallest first. */
function sizesOf(values: ArrayLike<number>): Float64Array {
  return Float64Array.from(values, Math.abs).filter((size) => size > 0 && size < Infinity).sort();
}

function decimalsOf(size: number, digits: number): number {
  return Math.max(0, digits - 1 - Math.floor(Math.log10(size) + 1e-6)); // 0.01 as float32 is a little less
}

/** What is there and too small for these decimals is said to be less than their last. */
function withDecimals(decimals: number): Format {
  const { format } = new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  const last = 10 ** -decimals;
  return (value) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return three(value);
    if (value !== 0 && Math.abs(value) < last / 2) return value > 0 ? `< ${format(last)}` : `> ${MINUS}${format(last)}`;
    return value < 0 ? MINUS + format(-value) : format(value);
  };
}

/** A share as a percentage: 0.21 %, 31 %, below 0.001 %. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined || Number.isNaN(share)) return "\u2013";
  const value = share * 100;
  if (value > 0 && value < 0.001) return "< 0.001 %";
  return `${value >= 10 ? Number(value.toFixed(1)) : Number(value.toPrecision(2))} %`;
}

/** 200,000 */
export function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** 38k, 1.2M: for rates and totals where the last digits do not matter. */
export function short(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (value >= 1e3) return `${Number((value / 1e3).toPrecision(3))}k`;
  return Number(value.toPrecision(3)).toString();
}

/** 15 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

// Decodes the binary frame of the live socket; its layout is described in boucle/web/frame.py.

const text = new TextDecoder();

/** @returns {{at: number, seq: number, machines: object[]}} plots carry their Float32Array(s). */
export function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const frame = JSON.parse(text.decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  const take = (count) => {
    const array = new Float32Array(buffer, offset, count);
    offset += 4 * count;
    return array;
  };
  for (const machine of frame.machines) {
    for (const plot of machine.plots) {
      if (plot.kind === "trend") plot.ago = take(plot.n);
      plot.values = take(plot.n);
    }
  }
  return frame;
}

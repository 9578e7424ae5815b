// Reads arrays with zarrita, for the tests: a JSON line [group, name, selection] on stdin, a JSON line for each on stdout.
// A selection is null or one [start, stop] a dimension. The group is opened anew each time, by its consolidated metadata.
import { createInterface } from "node:readline";
import { FileSystemStore } from "@zarrita/storage";
import * as zarr from "zarrita";

async function read(group, name, selection) {
  const store = await zarr.withConsolidatedMetadata(new FileSystemStore(group), { format: "v3" });
  const array = await zarr.open.v3(zarr.root(store).resolve(name), { kind: "array" });
  const spans = selection && selection.map(([start, stop]) => zarr.slice(start, stop));
  const { data, shape, stride } = await zarr.get(array, spans);
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return { dtype: array.dtype, shape, stride, data: bytes.toString("base64") };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await read(...JSON.parse(line)).catch((error) => ({ error: `${error.name}: ${error.message}` }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

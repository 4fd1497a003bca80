// The files of a folder that `workerd-bindgen` has made, as options for miniflare.

import { readdir } from "node:fs/promises";
import { resolve } from "node:path";

export async function modules(folder) {
  const modulesRoot = resolve(folder);
  const found = [{ type: "ESModule", path: resolve(folder, "entry.mjs") }];
  for (const file of await readdir(folder, { recursive: true })) {
    const path = resolve(folder, file);
    if (path.endsWith(".js")) found.push({ type: "ESModule", path });
    if (path.endsWith(".wasm")) found.push({ type: "CompiledWasm", path });
  }
  return { modulesRoot, modules: found };
}

// Uploads a file with tus-js-client: node tus_client.mjs MODULE ENDPOINT FILE CHUNK_BYTES; prints the upload's address.
import { createReadStream, statSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [modulePath, endpoint, file, chunkBytes] = process.argv.slice(2);
const tus = await import(pathToFileURL(modulePath));

const upload = new tus.Upload(createReadStream(file), {
  endpoint,
  uploadSize: statSync(file).size,
  chunkSize: Number(chunkBytes),
  metadata: { filename: "näme.bin", filetype: "video/mp4" },
  retryDelays: Array(60).fill(100),
  onError(error) {
    console.error(String(error));
    process.exit(1);
  },
  onSuccess() {
    console.log(upload.url);
  },
});
upload.start();

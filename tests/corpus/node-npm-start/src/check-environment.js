import { accessSync, constants } from 'node:fs';
import { fileURLToPath } from 'node:url';

const [major] = process.versions.node.split('.').map(Number);
if (major < 18) {
  console.error(`Node 18 or newer is needed, this is ${process.version}`);
  process.exit(1);
}
accessSync(fileURLToPath(new URL('../timesheets.yaml', import.meta.url)), constants.R_OK);

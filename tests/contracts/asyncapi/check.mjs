// Reads {name: document} as JSON from standard input, writes {name: {parsed, diagnostics}}.
import { text } from 'node:stream/consumers';
import { Parser } from '@asyncapi/parser';

const found = {};
const parser = new Parser();
for (const [name, document] of Object.entries(JSON.parse(await text(process.stdin)))) {
  const { document: parsed, diagnostics } = await parser.parse(document);
  found[name] = {
    parsed: parsed !== undefined,
    diagnostics: diagnostics.map(({ severity, code, message, path }) => ({
      severity, code, message, path: path.join('.'),
    })),
  };
}
process.stdout.write(JSON.stringify(found));

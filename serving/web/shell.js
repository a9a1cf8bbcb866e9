// Lines for a shell, as the pages show and copy them.

export const KEY = '-H "Authorization: Bearer $KEY"';

export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

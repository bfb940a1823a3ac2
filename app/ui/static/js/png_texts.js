// The text chunks of a PNG file. Pure.
// Source: PNG specification, third edition, sections 5.3 (chunks), 11.3.3 (tEXt and iTXt; compressed ones are skipped).

/** Return the texts of a PNG file by their keywords; none for another file. */
export function pngTexts(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(buffer);
  const texts = {};
  if (bytes.length < 8 || view.getUint32(0) !== 0x89504e47) return texts;
  for (let at = 8; at + 8 <= bytes.length;) {
    const size = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + size);
    if (type === 'IDAT' || type === 'IEND') break;
    if (type === 'tEXt') Object.assign(texts, plain(data));
    if (type === 'iTXt') Object.assign(texts, international(data));
    at += size + 12;
  }
  return texts;
}

function plain(data) {
  const end = data.indexOf(0);
  const latin = new TextDecoder('latin1');
  return end < 0 ? {} : {[latin.decode(data.subarray(0, end))]: latin.decode(data.subarray(end + 1))};
}

function international(data) {
  const end = data.indexOf(0);
  if (end < 0 || data[end + 1] !== 0) return {};
  const language = data.indexOf(0, end + 3);
  const translated = data.indexOf(0, language + 1);
  return {[new TextDecoder('latin1').decode(data.subarray(0, end))]: new TextDecoder().decode(data.subarray(translated + 1))};
}

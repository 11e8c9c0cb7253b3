import { defineConfig } from "vite";

const SERVICE = "http://127.0.0.1:8080";
const QUESTIONS = ["/candles", "/exchanges", "/health", "/mode", "/prices", "/stream", "/symbols"];

export default defineConfig({
  // `npm run dev` asks a service that runs already.
  server: { proxy: Object.fromEntries(QUESTIONS.map((path) => [path, { target: SERVICE, changeOrigin: false }])) },
  build: {
    target: "es2022",
    // Those that know light-dark().
    cssTarget: ["chrome123", "firefox128", "safari17.5"],
    // The policy of the page allows files of its own only: no data: URIs, no inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.md" },
    reportCompressedSize: false,
  },
  plugins: [
    {
      // The theme that was chosen is to be there with the first paint.
      name: "block-rendering",
      transformIndexHtml: { order: "post", handler: (html) => html.replace('<script type="module"', "$& blocking=\"render\"") },
    },
  ],
});

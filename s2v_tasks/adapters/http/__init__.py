"""HTTP: the client of the paid API, the fetcher of images, SSRF-safe connections, DNS."""

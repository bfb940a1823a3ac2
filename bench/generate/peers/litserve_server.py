"""LitServe with its batching; runs in an environment of its own.

The pipeline takes one number of steps, one guidance and one noise scheduler a call, so a batch is one call for each
group of requests that are alike. `--max-batch-size` must be above 1: below, LitServe hands over single requests.
Annotations are types here, not their text, because LitServe reads them.
Nothing is compiled on a GPU: for batches of any size that took over five minutes in LitServe's worker process.
"""

from typing import Any

import litserve  # type: ignore[import-not-found, unused-ignore]
from fastapi import Response

from bench.generate.peers.command import parse_peer, subject_of
from bench.generate.pipeline import Subject, draw, encode_png, load_fast_pipeline, scheduler_for
from bench.generate.traces import ImageRequest, group_alike


class GenerateAPI(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """`POST /generate` on LitServe."""

    subject: Subject

    def setup(self, device: str) -> None:
        """Load the model, in LitServe's worker process."""
        self.pipeline = load_fast_pipeline(self.subject)

    def decode_request(self, request: dict[str, Any], **_: Any) -> ImageRequest:
        """Read the body."""
        return ImageRequest.from_json(request)

    def batch(self, inputs: list[ImageRequest]) -> list[ImageRequest]:
        """Keep the requests as a list."""
        return inputs

    def predict(self, x: list[ImageRequest], **_: Any) -> list[bytes]:
        """Draw a batch, one call for each group of it."""
        pngs: dict[int, bytes] = {}
        for group in group_alike(x):
            requests = [x[index] for index in group]
            self.pipeline.scheduler = scheduler_for(requests[0].scheduler, self.pipeline)
            pngs |= zip(group, map(encode_png, draw(self.pipeline, requests)), strict=True)
        return [pngs[index] for index in range(len(x))]

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Give each request its own."""
        return output

    def encode_response(self, output: Any, **_: Any) -> Response:
        """Answer the bytes."""
        return Response(output, media_type="image/png")


def main() -> None:
    """Serve until SIGTERM."""
    arguments = parse_peer()
    api = GenerateAPI(
        max_batch_size=arguments.max_batch_size, batch_timeout=arguments.batch_timeout, api_path="/generate"
    )
    api.subject = subject_of(arguments)  # of the object, which goes to the worker process, not of the class
    server = litserve.LitServer(api, accelerator=arguments.device, devices=1, timeout=False)
    server.run(
        host="127.0.0.1", port=arguments.port, num_api_servers=1, log_level="warning", generate_client_file=False
    )


if __name__ == "__main__":
    main()

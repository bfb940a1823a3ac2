"""The errors of an export; each has a `detail` for people. Imports nothing of the application."""


class ExportError(Exception):
    """A classifier cannot be exported; `detail` says why, in one or two sentences."""

    def __init__(self, detail: str) -> None:
        """Keep the text."""
        self.detail = detail
        super().__init__(detail)


class NotExportable(ExportError):
    """The classifier has no form in this format: another attempt gives the same error."""


class ExportTimedOut(ExportError):
    """The child process did not finish in time; it was ended."""


class ExportStopped(ExportError):
    """The caller is stopping, so the child process was ended."""


class ParityFailed(ExportError):
    """The exported graph computes something else than the classifier.

    Attributes:
        max_difference: The largest difference of a probability, 0 ... 1.
        max_log_difference: The largest difference of a log-probability, nats.
        num_other_classes: Pictures whose most probable class differs.
        num_pictures: The number of pictures compared.
    """

    def __init__(
        self, max_difference: float, max_log_difference: float, num_other_classes: int, num_pictures: int
    ) -> None:
        """Keep the figures and write the detail."""
        self.max_difference = max_difference
        self.max_log_difference = max_log_difference
        self.num_other_classes = num_other_classes
        self.num_pictures = num_pictures
        super().__init__(
            f"The ONNX graph differs from the classifier on {num_pictures} pictures: probabilities by up to "
            f"{max_difference:.2g}, and {num_other_classes} pictures get another class. It is not offered."
        )

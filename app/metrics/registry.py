"""Makes the counters and histograms of a list of series in a registry of one application. Any thread."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from app.metrics.series import Series

# Without them a counter would have a second series with the time of its first use.
disable_created_metrics()  # type: ignore[no-untyped-call]


def counter(registry: CollectorRegistry, series: Series) -> Counter:
    """Return a new counter."""
    return Counter(series.full_name, series.meaning, series.labels, registry=registry)


def gauge(registry: CollectorRegistry, series: Series) -> Gauge:
    """Return a new gauge."""
    return Gauge(series.full_name, series.meaning, series.labels, registry=registry)


def histogram(registry: CollectorRegistry, series: Series) -> Histogram:
    """Return a new histogram."""
    return Histogram(series.full_name, series.meaning, series.labels, registry=registry, buckets=series.buckets)

"""Reports on datasets: metrics, HTML pages, contact sheets."""

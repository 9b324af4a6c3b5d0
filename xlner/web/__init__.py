"""`xlner serve`: taggers behind HTTP, and a page that shows several of them side by side; extra `serve`."""

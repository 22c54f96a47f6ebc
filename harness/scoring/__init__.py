"""Many fields to many results: sources, worker processes, and a journal that lets it go on."""

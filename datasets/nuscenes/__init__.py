"""nuScenes: tables and sensor files as they are on disk, and its result files."""

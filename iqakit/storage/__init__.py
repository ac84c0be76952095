"""Files in and out: safetensors and JSON, written atomically, never unpickled."""

"""What would another policy do: named scenarios and recorded traffic, played through the real scheduler."""

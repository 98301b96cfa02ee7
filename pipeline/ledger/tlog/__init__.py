"""RFC 6962 trees and C2SP tiles, notes and checkpoints: pure, and nothing of ours."""

// From a feed's image, or the numbered test pattern, to the bytes that the camera sends.
#pragma once
#include "feed.h"

namespace sim {

struct Rendering {
    const Feed* feed = nullptr;  // empty: the test pattern, pixel(x, y) = (x + y + number + 1) mod 256
    uint64_t number = 0;         // image number, from 0
    uint32_t width = 0, height = 0, pixel_format = MONO8, padding = 0;
    double brightness = 1.0;  // 1: as it is
    uint64_t faults = 0;      // FAULT_BLACK, FAULT_SATURATED
    uint32_t shift = 0;       // pixels that the image is displaced to the right, round its edge
    uint64_t torn_from = 0;   // FAULT_IMAGE_TORN: the image number of the lower half
};
constexpr uint8_t PADDING_BYTE = 0xA5;  // behind the lines: no grey level that a check could take for background

inline uint32_t bytes_per_pixel(uint32_t pixel_format) { return pixel_format == RGB8 ? 3 : 1; }

// Writes the first `rows` rows, each width * bytes_per_pixel + padding bytes. Needs no lock: it touches only its arguments.
void render(const Rendering& what, uint32_t rows, uint8_t* target);

}  // namespace sim

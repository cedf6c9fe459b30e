#include "image.h"
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace sim {
namespace {

constexpr size_t MAX_WIDTH = 8192;

// One row of `columns` source pixels (1 or 3 bytes each) into the camera's format.
void convert_row(const uint8_t* from, uint32_t channels, uint32_t columns, uint32_t y, uint32_t pixel_format, uint8_t* to) {
    if (channels == 1 && pixel_format != RGB8) {
        std::memcpy(to, from, columns);
    } else if (channels == 3 && pixel_format == RGB8) {
        std::memcpy(to, from, size_t{columns} * 3);
    } else if (channels == 1) {
        for (uint32_t x = 0; x < columns; ++x) to[3 * x] = to[3 * x + 1] = to[3 * x + 2] = from[x];
    } else if (pixel_format == MONO8) {
        for (uint32_t x = 0; x < columns; ++x)
            to[x] = static_cast<uint8_t>((77u * from[3 * x] + 150u * from[3 * x + 1] + 29u * from[3 * x + 2]) >> 8);
    } else {  // Bayer RG: red and green on even rows, green and blue on odd ones
        for (uint32_t x = 0; x < columns; ++x) to[x] = from[3 * x + (y & 1u) + (x & 1u)];
    }
}

void render_rows(const Rendering& what, uint64_t number, uint32_t first, uint32_t end, uint8_t* target) {
    const uint32_t pixel = bytes_per_pixel(what.pixel_format);
    const size_t used = size_t{what.width} * pixel, stride = used + what.padding;
    const bool pattern = what.feed->empty();
    const uint32_t channels = pattern ? 1 : what.feed->channels();
    const uint32_t source_width = pattern ? what.width : what.feed->width(), source_height = pattern ? what.height : what.feed->height();
    const uint8_t* image = pattern ? nullptr : what.feed->image(number);
    const bool as_is = std::abs(what.brightness - 1.0) < 1e-9;
    if (as_is && !pattern && source_width == what.width && stride == used && channels == pixel && end <= source_height) {
        std::memcpy(target + stride * first, image + stride * first, stride * (end - first));  // the usual case, and the fast one
        return;
    }
    static const auto ramp = [] {
        std::array<uint8_t, MAX_WIDTH + 256> values{};
        for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint8_t>(i);
        return values;
    }();
    std::array<uint8_t, 256> levels{};
    for (size_t i = 0; i < levels.size(); ++i)
        levels[i] = static_cast<uint8_t>(std::lround(std::min(255.0, static_cast<double>(i) * what.brightness)));
    const uint32_t columns = std::min(what.width, source_width);
    for (uint32_t y = first; y < end; ++y) {
        uint8_t* row = target + stride * y;
        const size_t written = y < source_height ? size_t{columns} * pixel : 0;
        if (written) {
            const uint8_t* from = pattern ? ramp.data() + ((y + number + 1) & 255u) : image + size_t{source_width} * channels * y;
            convert_row(from, channels, columns, y, what.pixel_format, row);
            if (!as_is)
                for (size_t x = 0; x < written; ++x) row[x] = levels[row[x]];
        }
        std::memset(row + written, 0, used - written);
        std::memset(row + used, PADDING_BYTE, stride - used);
    }
}

}  // namespace

void render(const Rendering& what, uint32_t rows, uint8_t* target) {
    const size_t used = size_t{what.width} * bytes_per_pixel(what.pixel_format), stride = used + what.padding;
    if (what.faults & (FAULT_BLACK | FAULT_SATURATED)) {
        std::memset(target, what.faults & FAULT_BLACK ? 0 : 255, stride * rows);
        return;
    }
    const uint32_t tear = what.faults & FAULT_IMAGE_TORN ? std::min(rows, what.height / 2) : rows;
    render_rows(what, what.number, 0, tear, target);
    if (tear < rows) render_rows(what, what.torn_from, tear, rows, target);
    const size_t shift = size_t{what.shift % what.width} * bytes_per_pixel(what.pixel_format);
    for (uint32_t y = 0; shift && y < rows; ++y) std::rotate(target + stride * y, target + stride * y + used - shift, target + stride * y + used);
}

}  // namespace sim

// A feed file: raw images of one size, memory-mapped read-only (written by feed.py).
#pragma once
#include "common.h"

namespace sim {

struct FeedHeader {
    char magic[8];  // "INSPFEED"
    uint32_t version, count, width, height, channels, reserved;
};
static_assert(sizeof(FeedHeader) == 32, "feed.py writes this layout");

class Feed {
public:
    explicit Feed(const std::string& path);  // empty path: no feed
    ~Feed();
    Feed(const Feed&) = delete;
    Feed& operator=(const Feed&) = delete;

    bool empty() const { return header_ == nullptr; }
    uint32_t count() const { return header_->count; }
    uint32_t width() const { return header_->width; }
    uint32_t height() const { return header_->height; }
    uint32_t channels() const { return header_->channels; }
    // Rows from the top, pixels from the left, 1 (grey) or 3 (RGB) bytes each.
    const uint8_t* image(uint64_t index) const;

private:
    void* map_ = nullptr;
    size_t size_ = 0;
    const FeedHeader* header_ = nullptr;
};

}  // namespace sim

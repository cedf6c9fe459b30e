#include "feed.h"
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sim {

Feed::Feed(const std::string& path) {
    if (path.empty()) return;
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw Error(GC_ERR_IO, "feed file " + path + " cannot be opened");
    struct stat info {};
    if (::fstat(fd, &info) == 0 && info.st_size >= static_cast<off_t>(sizeof(FeedHeader))) {
        size_ = static_cast<size_t>(info.st_size);
        map_ = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    }
    ::close(fd);
    if (map_ == nullptr || map_ == MAP_FAILED) {
        map_ = nullptr;
        throw Error(GC_ERR_IO, "feed file " + path + " is too short or cannot be mapped");
    }
    const auto* header = static_cast<const FeedHeader*>(map_);
    const bool known = std::memcmp(header->magic, "INSPFEED", 8) == 0 && header->version == 1 && header->count > 0 &&
                       header->width > 0 && header->height > 0 && (header->channels == 1 || header->channels == 3);
    const auto needed = known ? sizeof(FeedHeader) + uint64_t{header->count} * header->width * header->height * header->channels : 0;
    if (!known || size_ < needed) {
        ::munmap(map_, size_);
        map_ = nullptr;
        throw Error(GC_ERR_INVALID_VALUE, "feed file " + path + " is no feed of version 1, or is cut short");
    }
    header_ = header;
}

Feed::~Feed() {
    if (map_) ::munmap(map_, size_);
}

const uint8_t* Feed::image(uint64_t index) const {
    const size_t size = size_t{header_->width} * header_->height * header_->channels;
    return static_cast<const uint8_t*>(map_) + sizeof(FeedHeader) + size * (index % header_->count);
}

}  // namespace sim

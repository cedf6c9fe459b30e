#include "store.h"
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sim {
namespace {

constexpr uint64_t MAGIC = 0x3230564544534E49;  // "INSDEV02"

int open_file(const std::string& path, int flags) {
    const int fd = ::open(path.c_str(), flags | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) throw Error(GC_ERR_IO, "device state " + path + " cannot be opened: " + std::strerror(errno));
    return fd;
}

}  // namespace

DeviceStore::DeviceStore(const std::string& folder, unsigned index) {
    if (!folder.empty()) {
        const std::string base = folder + "/camera" + std::to_string(index);
        state_fd_ = open_file(base + ".state", O_RDWR);
        log_fd_ = open_file(base + ".v2.log", O_RDWR | O_APPEND);
        calls_fd_ = open_file(base + ".calls", O_WRONLY | O_APPEND);
        void* map = ::ftruncate(state_fd_, sizeof(DeviceState)) == 0
                        ? ::mmap(nullptr, sizeof(DeviceState), PROT_READ | PROT_WRITE, MAP_SHARED, state_fd_, 0)
                        : MAP_FAILED;
        if (map == MAP_FAILED) throw Error(GC_ERR_IO, "device state " + base + ".state cannot be mapped: " + std::strerror(errno));
        state_ = static_cast<DeviceState*>(map);
    }
    if (state_->magic != MAGIC) {
        *state_ = DeviceState{};
        state_->created_ns = now_ns();
        state_->magic = MAGIC;
    }
}

DeviceStore::~DeviceStore() {
    if (state_ != &memory_) ::munmap(state_, sizeof(DeviceState));
    if (state_fd_ >= 0) ::close(state_fd_);
    if (log_fd_ >= 0) ::close(log_fd_);
    if (calls_fd_ >= 0) ::close(calls_fd_);
}

void DeviceStore::append(const TriggerRecord& record) {
    if (log_fd_ >= 0 && ::write(log_fd_, &record, sizeof record) != sizeof record)
        throw Error(GC_ERR_IO, std::string("the trigger log cannot be written: ") + std::strerror(errno));
    state_->counter = record.counter;
}

void DeviceStore::note(const char* kind, uint64_t number) {
    const std::string line = std::to_string(now_ns()) + ' ' + kind + ' ' + std::to_string(number) + '\n';
    if (calls_fd_ >= 0 && ::write(calls_fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
        throw Error(GC_ERR_IO, std::string("the call log cannot be written: ") + std::strerror(errno));
}

bool DeviceStore::lock() { return state_fd_ < 0 || ::flock(state_fd_, LOCK_EX | LOCK_NB) == 0; }

void DeviceStore::unlock() {
    if (state_fd_ >= 0) ::flock(state_fd_, LOCK_UN);
}

void DeviceStore::refresh() {
    struct stat info {};
    if (log_fd_ < 0 || ::fstat(log_fd_, &info) != 0) return;
    const off_t whole = info.st_size - info.st_size % static_cast<off_t>(sizeof(TriggerRecord));
    if (whole != info.st_size && ::ftruncate(log_fd_, whole) != 0) throw Error(GC_ERR_IO, "the trigger log cannot be mended");
    TriggerRecord last{};
    if (whole && ::pread(log_fd_, &last, sizeof last, whole - static_cast<off_t>(sizeof last)) == sizeof last) state_->counter = last.counter;
}

}  // namespace sim

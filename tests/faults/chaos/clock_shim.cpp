// Stands between one process and the C library's wall clock: adds the 64-bit nanoseconds that stand in CLOCK_SHIM_FILE.
// Every other clock, and every other process, is left alone.
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

namespace {

const volatile int64_t* map_offset() {
    const char* path = std::getenv("CLOCK_SHIM_FILE");
    const int fd = path == nullptr ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return nullptr;
    void* page = mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return page == MAP_FAILED ? nullptr : static_cast<const volatile int64_t*>(page);
}

int64_t offset_ns() {
    static const volatile int64_t* const mapped = map_offset();
    return mapped == nullptr ? 0 : *mapped;
}

int read_clock(clockid_t id, timespec* now) {
    if (syscall(SYS_clock_gettime, id, now) != 0) return -1;
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) {
        const int64_t ns = now->tv_nsec + offset_ns() % 1000000000;
        now->tv_sec += offset_ns() / 1000000000 + (ns >= 1000000000 ? 1 : ns < 0 ? -1 : 0);
        now->tv_nsec = (ns + 1000000000) % 1000000000;
    }
    return 0;
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t id, timespec* now) noexcept { return read_clock(id, now); }

int gettimeofday(timeval* now, void*) noexcept {
    timespec fine;
    if (read_clock(CLOCK_REALTIME, &fine) != 0) return -1;
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t* out) noexcept {
    timespec fine;
    if (read_clock(CLOCK_REALTIME, &fine) != 0) return -1;
    if (out != nullptr) *out = fine.tv_sec;
    return fine.tv_sec;
}

}

// The handles that the consumer holds. Every one is checked before use: a stale handle is an error, never a crash.
#pragma once
#include "common.h"
#include <mutex>
#include <set>

namespace sim {

enum class Kind { SYSTEM, INTERFACE, DEVICE, REMOTE_DEVICE, STREAM, EVENT };

struct Object {
    explicit Object(Kind of) : kind(of) {}
    virtual ~Object() = default;
    Object(const Object&) = delete;
    Object& operator=(const Object&) = delete;
    const Kind kind;
};

class Handles {
public:
    void add(Object* object);
    void remove(Object* object);
    void clear();
    Object& any(HANDLE handle);
    template <class T> T& get(HANDLE handle, Kind kind) {
        Object& object = any(handle);
        if (object.kind != kind) throw Error(GC_ERR_INVALID_HANDLE, "the handle is of another kind");
        return static_cast<T&>(object);
    }

private:
    std::mutex mutex_;
    std::set<Object*> live_;
};

}  // namespace sim

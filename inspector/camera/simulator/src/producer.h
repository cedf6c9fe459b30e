// The library behind the exported functions: its cameras, its handles, and how exceptions and answers become GenTL's.
#pragma once
#include "handles.h"
#include "stream.h"
#include <memory>

namespace sim {

struct RemotePort : Object {
    explicit RemotePort(Camera& of) : Object(Kind::REMOTE_DEVICE), camera(of) {}
    Camera& camera;
};

struct Device : Object {
    explicit Device(Camera& of) : Object(Kind::DEVICE), camera(of), port(of) {}
    Camera& camera;
    RemotePort port;
    std::unique_ptr<Stream> stream;
};

// One per process. `mutex` guards the members. Devices outlive GCCloseLib: as files where INSPECTOR_SIM_STATE names a folder,
// else as the objects themselves, until the environment describes others.
struct Library {
    std::mutex mutex;
    bool ready = false;
    std::string configured_by, problem;  // problem: what is wrong with the environment
    std::vector<std::unique_ptr<Camera>> cameras;
    std::map<Camera*, std::unique_ptr<Device>> devices;
    Object system{Kind::SYSTEM}, interface{Kind::INTERFACE};
    Handles handles;

    void open();
    void close();
    Camera& camera(const char* id);  // throws when it is not there
    Device& open_device(const char* id);
    void close_device(Device& device);
    void close_stream(Device& device);
};

Library& library();
void remember(GC_ERROR code, const std::string& text);

// Runs an exported function's body: whatever is thrown becomes the status and the thread's last error.
template <class Body> GC_ERROR guarded(Body body) {
    try {
        body();
        return GC_ERR_SUCCESS;
    } catch (const Error& error) {
        remember(error.code, error.what());
        return error.code;
    } catch (const std::exception& error) {
        remember(GC_ERR_ERROR, error.what());
        return GC_ERR_ERROR;
    }
}

// Where an answer goes: GenTL's protocol of asking for the size first.
struct Answer {
    INFO_DATATYPE* type;
    void* buffer;
    size_t* size;

    void bytes(INFO_DATATYPE datatype, const void* data, size_t length) const;
    void text(const std::string& value) const { bytes(INFO_DATATYPE_STRING, value.c_str(), value.size() + 1); }
    void u64(uint64_t value) const { bytes(INFO_DATATYPE_UINT64, &value, sizeof value); }
    void u32(uint32_t value) const { bytes(INFO_DATATYPE_UINT32, &value, sizeof value); }
    void i32(int32_t value) const { bytes(INFO_DATATYPE_INT32, &value, sizeof value); }
    void length(size_t value) const { bytes(INFO_DATATYPE_SIZET, &value, sizeof value); }
    void pointer(const void* value) const { bytes(INFO_DATATYPE_PTR, &value, sizeof value); }
    void flag(bool value) const {
        const bool8_t byte = value;
        bytes(INFO_DATATYPE_BOOL8, &byte, sizeof byte);
    }
};

[[noreturn]] inline void not_available(const char* what) { throw Error(GC_ERR_NOT_AVAILABLE, std::string(what) + " is not available"); }
[[noreturn]] inline void not_implemented(const char* what) { throw Error(GC_ERR_NOT_IMPLEMENTED, std::string(what) + " is not implemented"); }

}  // namespace sim

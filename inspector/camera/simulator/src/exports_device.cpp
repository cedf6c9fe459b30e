// Exported: system, interface and device.
#include "producer.h"
#include <cstring>

using namespace sim;

namespace {

constexpr const char *INTERFACE_ID = "simulated-line", *STREAM_ID = "stream0";

void interface_info(COMMAND command, const Answer& answer) {
    switch (command) {
        case INTERFACE_INFO_ID:
        case INTERFACE_INFO_DISPLAYNAME: return answer.text(INTERFACE_ID);
        case INTERFACE_INFO_TLTYPE: return answer.text("Custom");
        default: not_available("this information of the interface");
    }
}

void device_info(Camera& camera, COMMAND command, const Answer& answer) {
    switch (command) {
        case DEVICE_INFO_ID: return answer.text(camera.id);
        case DEVICE_INFO_VENDOR: return answer.text("inspector");
        case DEVICE_INFO_MODEL: return answer.text("SimulatedCamera");
        case DEVICE_INFO_TLTYPE: return answer.text("Custom");
        case DEVICE_INFO_DISPLAYNAME: return answer.text("Simulated camera " + camera.serial());
        case DEVICE_INFO_USER_DEFINED_NAME: return answer.text("");
        case DEVICE_INFO_SERIAL_NUMBER: return answer.text(camera.serial());
        case DEVICE_INFO_VERSION: return answer.text("1.0");
        case DEVICE_INFO_TIMESTAMP_FREQUENCY: return answer.u64(1'000'000'000);
        case DEVICE_INFO_ACCESS_STATUS: {
            const std::lock_guard<std::mutex> lock(camera.mutex);
            return answer.i32(camera.dead || !camera.present() ? DEVICE_ACCESS_STATUS_NOACCESS
                              : camera.opened                  ? DEVICE_ACCESS_STATUS_OPEN_READWRITE
                                                               : DEVICE_ACCESS_STATUS_READWRITE);
        }
        default: not_available("this information of the device");
    }
}

std::vector<Camera*> present_cameras() {
    const std::lock_guard<std::mutex> lock(library().mutex);
    std::vector<Camera*> found;
    for (auto& camera : library().cameras) {
        const std::lock_guard<std::mutex> camera_lock(camera->mutex);
        if (camera->present()) found.push_back(camera.get());
    }
    return found;
}

void check(HANDLE handle, Kind kind) { library().handles.get<Object>(handle, kind); }

Device& device_of(HANDLE handle) { return library().handles.get<Device>(handle, Kind::DEVICE); }

}  // namespace

GENTL_EXPORT GC_ERROR TLOpen(HANDLE* handle) {
    return guarded([&] {
        if (!library().ready) throw Error(GC_ERR_NOT_INITIALIZED, "call GCInitLib first");
        if (!library().problem.empty()) throw Error(GC_ERR_INVALID_VALUE, library().problem);
        *handle = &library().system;
    });
}
GENTL_EXPORT GC_ERROR TLClose(HANDLE handle) {
    return guarded([&] { check(handle, Kind::SYSTEM); });
}
GENTL_EXPORT GC_ERROR TLGetNumInterfaces(HANDLE handle, uint32_t* count) {
    return guarded([&] {
        check(handle, Kind::SYSTEM);
        *count = 1;
    });
}
GENTL_EXPORT GC_ERROR TLGetInterfaceID(HANDLE handle, uint32_t index, char* text, size_t* size) {
    return guarded([&] {
        check(handle, Kind::SYSTEM);
        if (index) throw Error(GC_ERR_INVALID_INDEX, "there is one interface");
        Answer{nullptr, text, size}.text(INTERFACE_ID);
    });
}
GENTL_EXPORT GC_ERROR TLGetInterfaceInfo(HANDLE handle, const char*, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] {
        check(handle, Kind::SYSTEM);
        interface_info(command, {type, buffer, size});
    });
}
GENTL_EXPORT GC_ERROR TLOpenInterface(HANDLE handle, const char* id, HANDLE* interface) {
    return guarded([&] {
        check(handle, Kind::SYSTEM);
        if (!id || std::strcmp(id, INTERFACE_ID) != 0) throw Error(GC_ERR_INVALID_ID, "no such interface");
        *interface = &library().interface;
    });
}
GENTL_EXPORT GC_ERROR TLUpdateInterfaceList(HANDLE handle, bool8_t* changed, uint64_t) {
    return guarded([&] {
        check(handle, Kind::SYSTEM);
        if (changed) *changed = 0;
    });
}

GENTL_EXPORT GC_ERROR IFClose(HANDLE handle) {
    return guarded([&] { check(handle, Kind::INTERFACE); });
}
GENTL_EXPORT GC_ERROR IFGetInfo(HANDLE handle, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] {
        check(handle, Kind::INTERFACE);
        interface_info(command, {type, buffer, size});
    });
}
GENTL_EXPORT GC_ERROR IFGetParentTL(HANDLE handle, HANDLE* system) {
    return guarded([&] {
        check(handle, Kind::INTERFACE);
        *system = &library().system;
    });
}
GENTL_EXPORT GC_ERROR IFUpdateDeviceList(HANDLE handle, bool8_t* changed, uint64_t) {
    return guarded([&] {
        check(handle, Kind::INTERFACE);
        if (changed) *changed = 1;
    });
}
GENTL_EXPORT GC_ERROR IFGetNumDevices(HANDLE handle, uint32_t* count) {
    return guarded([&] {
        check(handle, Kind::INTERFACE);
        *count = static_cast<uint32_t>(present_cameras().size());
    });
}
GENTL_EXPORT GC_ERROR IFGetDeviceID(HANDLE handle, uint32_t index, char* text, size_t* size) {
    return guarded([&] {
        check(handle, Kind::INTERFACE);
        const auto cameras = present_cameras();
        if (index >= cameras.size()) throw Error(GC_ERR_INVALID_INDEX, "no such camera");
        Answer{nullptr, text, size}.text(cameras[index]->id);
    });
}
GENTL_EXPORT GC_ERROR IFGetDeviceInfo(HANDLE handle, const char* id, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] {
        check(handle, Kind::INTERFACE);
        device_info(library().camera(id), command, {type, buffer, size});
    });
}
GENTL_EXPORT GC_ERROR IFOpenDevice(HANDLE handle, const char* id, COMMAND, HANDLE* device) {
    return guarded([&] {
        check(handle, Kind::INTERFACE);
        *device = &library().open_device(id);
    });
}

GENTL_EXPORT GC_ERROR DevGetInfo(HANDLE handle, COMMAND command, INFO_DATATYPE* type, void* buffer, size_t* size) {
    return guarded([&] { device_info(device_of(handle).camera, command, {type, buffer, size}); });
}
GENTL_EXPORT GC_ERROR DevGetPort(HANDLE handle, HANDLE* port) {
    return guarded([&] { *port = &device_of(handle).port; });
}
GENTL_EXPORT GC_ERROR DevGetParentIF(HANDLE handle, HANDLE* interface) {
    return guarded([&] {
        device_of(handle);
        *interface = &library().interface;
    });
}
GENTL_EXPORT GC_ERROR DevGetNumDataStreams(HANDLE handle, uint32_t* count) {
    return guarded([&] {
        device_of(handle);
        *count = 1;
    });
}
GENTL_EXPORT GC_ERROR DevGetDataStreamID(HANDLE handle, uint32_t index, char* text, size_t* size) {
    return guarded([&] {
        device_of(handle);
        if (index) throw Error(GC_ERR_INVALID_INDEX, "there is one stream");
        Answer{nullptr, text, size}.text(STREAM_ID);
    });
}
GENTL_EXPORT GC_ERROR DevOpenDataStream(HANDLE handle, const char* id, HANDLE* stream) {
    return guarded([&] {
        Device& device = device_of(handle);
        if (!id || std::strcmp(id, STREAM_ID) != 0) throw Error(GC_ERR_INVALID_ID, "no such stream");
        if (device.stream) throw Error(GC_ERR_RESOURCE_IN_USE, "the stream is open already");
        device.stream = std::make_unique<Stream>(device.camera);
        library().handles.add(device.stream.get());
        *stream = device.stream.get();
    });
}
GENTL_EXPORT GC_ERROR DevClose(HANDLE handle) {
    return guarded([&] { library().close_device(device_of(handle)); });
}

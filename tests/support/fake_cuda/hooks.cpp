// What torch's C++ side asks of a CUDA device before it lets Python pretend one: a device guard, which autograd and operators with
// a device argument look up, and the hooks that say a GPU is there. One device, one stream, nothing asynchronous.
// Loaded by LD_PRELOAD, so that it is registered before torch starts; see library.py.
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <ATen/detail/CUDAHooksInterface.h>
struct OneDevice final : public ::c10::impl::DeviceGuardImplInterface {
  using D = c10::Device;
  using S = c10::Stream;
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  D exchangeDevice(D d) const override { return D(c10::DeviceType::CUDA,0); }
  D getDevice() const override { return D(c10::DeviceType::CUDA,0); }
  void setDevice(D) const override {}
  void uncheckedSetDevice(D) const noexcept override {}
  S getStream(D d) const override { return S(S::DEFAULT, D(c10::DeviceType::CUDA,0)); }
  S getNewStream(D d, int) const override { return getStream(d); }
  S getDefaultStream(D d) const override { return getStream(d); }
  S exchangeStream(S s) const override { return getStream(s.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void** e, const S&, const c10::DeviceIndex, const c10::EventFlag) const override { *e = (void*)1; }
  void block(void*, const S&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void synchronizeEvent(void*) const override {}
  bool queryStream(const S&) const override { return true; }
  void synchronizeStream(const S&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const S&) const override {}
};
namespace { static ::c10::impl::DeviceGuardImplRegistrar g_CUDA(::c10::DeviceType::CUDA, new OneDevice()); }
struct CUDAHooks : public at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
};
using at::CUDAHooksRegistry; using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks);

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <sstream>
#include <stdexcept>

#include "cuda/device/portability.cuh"
#include "cuda/rows/policy.cuh"

namespace ce_ext::cuda {
namespace {

using Table = std::array<RowPolicy, std::size(kRowPolicies)>;

std::string name_of(const RowPolicy& entry) {
  constexpr const char* kPasses[] = {"forward", "backward", "with_grad"};
  std::ostringstream name;
  name << kPasses[int(entry.pass)] << ':';
  entry.row_bytes == kAnyLength ? name << "inf" : name << entry.row_bytes;
  if (entry.capability > 0) name << '@' << entry.capability;
  return name.str();
}

std::string text_of(const Table& table) {
  std::ostringstream text;
  for (const RowPolicy& entry : table) {
    const RowShape& shape = entry.shape;
    text << (&entry == &table.front() ? "" : "; ") << name_of(entry) << '=' << shape.threads << ',' << shape.lanes
         << ',' << shape.packs << ',' << shape.cluster;
  }
  return text.str();
}

// Whether the pass has kernels for such teams.
bool is_valid(Pass pass, const RowShape& shape) {
  const bool is_backward = pass == Pass::kBackward;
  const int max_threads = is_backward ? kMaxBackwardThreads : max_row_threads(/*many_registers=*/false);
  if (shape.threads <= 0 || shape.threads % kWarpSize != 0 || shape.threads > max_threads) return false;
  if (shape.packs != 4 && (shape.packs != 8 || is_backward)) return false;
  if (shape.lanes == shape.threads) {
    return shape.cluster == 1 || (!is_backward && (shape.cluster == 2 || shape.cluster == 4 || shape.cluster == 8));
  }
  return shape.cluster == 1 && (shape.lanes == 8 || shape.lanes == 16 || shape.lanes == 32);
}

// `source` is who asks for it.
void override_one(Table& table, const std::string& entry, const std::string& source) {
  const std::string name = entry.substr(0, entry.find('='));
  const auto place = std::find_if(table.begin(), table.end(), [&](const auto& e) { return name_of(e) == name; });
  if (place == table.end()) {
    throw std::invalid_argument(source + ": '" + entry + "' is for no entry of the table, which has " + text_of(table));
  }
  RowShape& shape = place->shape;
  std::istringstream text(entry.substr(name.size()));
  char marks[4] = {};
  text >> marks[0] >> shape.threads >> marks[1] >> shape.lanes >> marks[2] >> shape.packs >> marks[3] >> shape.cluster;
  const bool has_all = text && std::string(marks, 4) == "=,,," && (text >> std::ws).eof();
  if (!has_all || !is_valid(place->pass, shape)) {
    throw std::invalid_argument(source + ": '" + entry + "' has to give THREADS,LANES,PACKS,CLUSTER that a kernel has");
  }
}

Table overridden(const std::string& overrides, const std::string& source) {
  Table table;
  std::copy(std::begin(kRowPolicies), std::end(kRowPolicies), table.begin());
  std::istringstream entries(overrides);
  for (std::string entry; std::getline(entries >> std::ws, entry, ';');) override_one(table, entry, source);
  return table;
}

struct Policy {
  std::mutex mutex;
  Table table;

  Policy() {
    const char* variable = "CE_EXT_CUDA_POLICY";
    const char* overrides = std::getenv(variable);
    table = overridden(overrides ? overrides : "", variable);
  }
};

// The one in force. Where the environment asks for what there is not, every use throws.
Policy& in_force() {
  static Policy policy;
  return policy;
}

int capability_of_device() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return 10 * major + minor;
}

}  // namespace

RowShape row_shape(Pass pass, int64_t row_bytes) {
  Policy& policy = in_force();
  const std::lock_guard<std::mutex> lock(policy.mutex);
  // Every pass ends with an entry for any length. Launches of short rows have no time to ask for the capability.
  return std::find_if(policy.table.begin(), policy.table.end(),
                      [&](const RowPolicy& entry) {
                        return entry.pass == pass && row_bytes <= entry.row_bytes &&
                               (entry.capability == 0 || entry.capability <= capability_of_device());
                      })
      ->shape;
}

void override_policy(const std::string& overrides) {
  Policy& policy = in_force();
  const Table table = overridden(overrides, "override_cuda_policy");
  const std::lock_guard<std::mutex> lock(policy.mutex);
  policy.table = table;
}

std::string policy_text() {
  Policy& policy = in_force();
  const std::lock_guard<std::mutex> lock(policy.mutex);
  return text_of(policy.table);
}

}  // namespace ce_ext::cuda

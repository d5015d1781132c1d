#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "cuda/rows/policy.cuh"

namespace ce_ext::cuda {
namespace {

using Table = std::array<RowPolicy, std::size(kRowPolicies)>;

std::string name_of(const RowPolicy& entry) {
  constexpr const char* kPasses[] = {"forward", "backward", "with_grad"};
  std::ostringstream name;
  name << kPasses[int(entry.pass)] << ':';
  entry.row_bytes == kAnyLength ? name << "inf" : name << entry.row_bytes;
  return name.str();
}

std::string text_of(const Table& table) {
  std::ostringstream text;
  for (const RowPolicy& entry : table) {
    text << (&entry == &table.front() ? "" : "; ") << name_of(entry) << '=' << entry.threads;
  }
  return text.str();
}

template <int... kSizes>
std::vector<int> sizes_of(TeamSizes<kSizes...>) {
  return {kSizes...};
}
std::vector<int> sizes_of(Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return sizes_of(ForwardTeams());
    case Pass::kBackward:
      return sizes_of(BackwardTeams());
    default:
      return sizes_of(WithGradTeams());
  }
}

// `source` is who asks for it.
void override_one(Table& table, const std::string& entry, const std::string& source) {
  const std::string name = entry.substr(0, entry.find('='));
  const auto place = std::find_if(table.begin(), table.end(), [&](const auto& e) { return name_of(e) == name; });
  if (place == table.end()) {
    throw std::invalid_argument(source + ": '" + entry + "' is for no entry of the table, which has " + text_of(table));
  }
  std::istringstream text(entry.substr(name.size()));
  char mark = 0;
  text >> mark >> place->threads;
  const std::vector<int> sizes = sizes_of(place->pass);
  const bool is_one = std::find(sizes.begin(), sizes.end(), place->threads) != sizes.end();
  if (!text || mark != '=' || !(text >> std::ws).eof() || !is_one) {
    std::ostringstream message;
    message << source << ": '" << entry << "' has to give one of";
    for (int size : sizes) message << ' ' << size;
    throw std::invalid_argument(message.str() + " threads");
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

}  // namespace

int row_threads(Pass pass, int64_t row_bytes) {
  Policy& policy = in_force();
  const std::lock_guard<std::mutex> lock(policy.mutex);
  // Every pass ends with an entry for any length.
  return std::find_if(policy.table.begin(), policy.table.end(),
                      [&](const RowPolicy& entry) { return entry.pass == pass && row_bytes <= entry.row_bytes; })
      ->threads;
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

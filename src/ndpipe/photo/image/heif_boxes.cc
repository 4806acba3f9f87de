#include "ndpipe/photo/image/heif_boxes.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

namespace ndpipe::photo {
namespace {

constexpr size_t kBoxHeaderBytes = 8;
constexpr size_t kVersionBytes = 4;  // of a full box: version and flags
// A photo's alpha channel made of tiles, or tiles with an alpha channel.
constexpr int kMaxDepth = 2;

std::unexpected<Error> Broken() {
  return Fail(ErrorCode::kDataLoss,
              "the HEIF or AVIF is broken or truncated: its boxes do not fit together");
}

uint64_t BigEndian(std::span<const uint8_t> bytes, size_t at, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | bytes[at + i];
  return value;
}

struct Box {
  std::string_view type;
  std::span<const uint8_t> payload;
};

// The boxes that `bytes` are, one after the other. ISO 14496-12, 4.2.
class Boxes {
 public:
  explicit Boxes(std::span<const uint8_t> bytes) : rest_(bytes) {}

  // Nothing at the end; what is too short for a box is none.
  Result<std::optional<Box>> Next() {
    if (rest_.size() < kBoxHeaderBytes) return std::nullopt;
    uint64_t size = BigEndian(rest_, 0, 4);
    size_t header = kBoxHeaderBytes;
    if (size == 1) {
      header += 8;
      if (rest_.size() < header) return Broken();
      size = BigEndian(rest_, kBoxHeaderBytes, 8);
    } else if (size == 0) {
      size = rest_.size();
    }
    if (size < header || size > rest_.size()) return Broken();
    const Box box{{reinterpret_cast<const char*>(rest_.data()) + 4, 4},
                  rest_.subspan(header, static_cast<size_t>(size) - header)};
    rest_ = rest_.subspan(static_cast<size_t>(size));
    return box;
  }

 private:
  std::span<const uint8_t> rest_;
};

// Who needs whom to be decoded.
struct Items {
  std::map<uint32_t, std::vector<uint32_t>> needs;
  std::set<uint32_t> derived;
  std::set<uint32_t> parts;  // of derived items
  bool has_overlay = false;
};

Status ReadReferences(std::span<const uint8_t> payload, Items& items) {
  if (payload.size() < kVersionBytes) return Broken();
  const size_t id_bytes = payload[0] == 0 ? 2 : 4;
  Boxes boxes(payload.subspan(kVersionBytes));
  while (true) {
    NDP_ASSIGN(const auto box, boxes.Next());
    if (!box) return {};
    const bool is_part = box->type == "dimg";
    const bool is_auxiliary = box->type == "auxl";
    if (!is_part && !is_auxiliary) continue;
    const auto bytes = box->payload;
    if (bytes.size() < id_bytes + 2) return Broken();
    const auto from = static_cast<uint32_t>(BigEndian(bytes, 0, id_bytes));
    const size_t count = BigEndian(bytes, id_bytes, 2);
    if (bytes.size() < id_bytes + 2 + count * id_bytes) return Broken();
    for (size_t i = 0; i < count; ++i) {
      const auto to =
          static_cast<uint32_t>(BigEndian(bytes, id_bytes + 2 + i * id_bytes, id_bytes));
      items.needs[is_part ? from : to].push_back(is_part ? to : from);
      if (is_part) items.derived.insert(from);
      if (is_part) items.parts.insert(to);
    }
  }
}

Status ReadItemInfos(std::span<const uint8_t> payload, Items& items) {
  if (payload.size() < kVersionBytes) return Broken();
  const size_t count_bytes = payload[0] == 0 ? 2 : 4;
  if (payload.size() < kVersionBytes + count_bytes) return Broken();
  Boxes boxes(payload.subspan(kVersionBytes + count_bytes));
  while (true) {
    NDP_ASSIGN(const auto box, boxes.Next());
    if (!box) return {};
    if (box->type != "infe") continue;
    if (box->payload.size() < kVersionBytes) return Broken();
    // Behind the item's id and protection index; versions below 2 have no type.
    const size_t at = kVersionBytes + (box->payload[0] == 2 ? 4 : 6);
    if (box->payload[0] < 2 || box->payload.size() < at + 4) continue;
    const auto type = box->payload.subspan(at, 4);
    items.has_overlay |= std::ranges::equal(type, std::string_view("iovl"), [](uint8_t a, char b) {
      return a == static_cast<uint8_t>(b);
    });
  }
}

Status ReadMeta(std::span<const uint8_t> payload, Items& items) {
  if (payload.size() < kVersionBytes) return Broken();
  Boxes boxes(payload.subspan(kVersionBytes));
  while (true) {
    NDP_ASSIGN(const auto box, boxes.Next());
    if (!box) return {};
    if (box->type == "iref") NDP_RETURN_IF_ERROR(ReadReferences(box->payload, items));
    if (box->type == "iinf") NDP_RETURN_IF_ERROR(ReadItemInfos(box->payload, items));
  }
}

// Whether a chain of more than kMaxDepth needs exists: one that goes round never ends.
bool GoesTooDeep(const Items& items) {
  std::set<uint32_t> reached;
  for (const auto& [item, needs] : items.needs) reached.insert(item);
  for (int depth = 0; depth <= kMaxDepth && !reached.empty(); ++depth) {
    std::set<uint32_t> next;
    for (const uint32_t item : reached) {
      const auto found = items.needs.find(item);
      if (found != items.needs.end()) next.insert(found->second.begin(), found->second.end());
    }
    reached = std::move(next);
  }
  return !reached.empty();
}

}  // namespace

Result<HeifItems> CheckHeifItems(std::span<const uint8_t> photo) {
  Items items;
  Boxes boxes(photo);
  while (true) {
    NDP_ASSIGN(const auto box, boxes.Next());
    if (!box) break;
    if (box->type == "meta") NDP_RETURN_IF_ERROR(ReadMeta(box->payload, items));
  }
  if (GoesTooDeep(items)) {
    return Fail(ErrorCode::kDataLoss,
                "the HEIF or AVIF is broken: its pictures are made of each other, without end");
  }
  const bool is_nested =
      std::ranges::any_of(items.derived, [&](uint32_t item) { return items.parts.contains(item); });
  if (is_nested || items.has_overlay) {
    return Fail(
        ErrorCode::kInvalidArgument,
        "a HEIF or AVIF that is composed of other pictures is not a photo: only the tiles of "
        "a grid are put together");
  }
  return HeifItems{.has_derived = !items.derived.empty()};
}

}  // namespace ndpipe::photo

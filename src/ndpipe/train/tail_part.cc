#include "ndpipe/train/tail_part.h"

#include <utility>

#include "ndpipe/model/classifier.h"

namespace ndpipe::train {

Result<std::optional<PartEnd>> EndOf(const TailPart& part, int64_t cut_size) {
  if (part.graph == nullptr || part.cut.empty()) return std::nullopt;
  NDP_ASSIGN(auto classifier, model::FindClassifier(*part.graph));
  if (part.cut == classifier.features) return std::nullopt;
  const auto num_elements = model::NumElements(part.dims);
  if (!num_elements || *num_elements != cut_size || cut_size < 1) {
    return Fail(ErrorCode::kInvalidArgument,
                "the features at the cut '" + part.cut + "' have " + std::to_string(cut_size) +
                    " values a photo, which do not make its dimensions");
  }
  return PartEnd{.features = std::move(classifier.features),
                 .feature_size = classifier.feature_size};
}

}  // namespace ndpipe::train

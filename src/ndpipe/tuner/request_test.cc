#include "ndpipe/tuner/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ndpipe::tuner {
namespace {

using testing::HasSubstr;

TEST(FinetuneRequest, IsReadAsItWasWritten) {
  rpc::FinetuneRequest request;
  request.backbone = "net";
  request.num_runs = 4;
  request.min_stores = 2;
  request.recipe = "ndpipe";
  request.seed = ~uint64_t{0};
  request.precision = "bf16";
  request.on_loss = "continue";
  request.relabel = false;
  request.epochs = 7;
  request.learning_rate = 0.1;
  request.weight_decay = 0;
  request.patience = 3;
  request.replay = false;
  request.cut = "/blocks.3/Add";
  request.continue_from = 5;
  request.stores = {"a", "b"};
  request.delta_bits = 8;
  request.views = 4;
  const auto text = FormatFinetuneRequest(request);
  const auto read = ParseFinetuneRequest(text);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(FormatFinetuneRequest(*read), text);
  EXPECT_EQ(read->learning_rate, 0.1);
  EXPECT_EQ(read->weight_decay, 0);
  EXPECT_EQ(read->mixup, std::nullopt);
  EXPECT_EQ(read->patience, 3);
  EXPECT_FALSE(read->replay);
  EXPECT_EQ(read->cut, "/blocks.3/Add");
  EXPECT_EQ(read->continue_from, 5);
  EXPECT_EQ(read->stores, request.stores);
  EXPECT_EQ(read->delta_bits, 8);
  EXPECT_EQ(read->views, 4);
}

// As jobs.db has them of programs that knew linear tails only.
TEST(FinetuneRequest, OldRecordsAreRead) {
  const auto request = ParseFinetuneRequest(
      R"({"backbone":"ab","num_runs":2,"min_stores":1,"recipe":"default","seed":1,)"
      R"("precision":"fp32","on_loss":"wait","relabel":true,"epochs":0})");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_TRUE(request->replay);
  EXPECT_EQ(request->cut, "");
  EXPECT_EQ(request->continue_from, 0);
  EXPECT_TRUE(request->stores.empty());
  EXPECT_EQ(request->delta_bits, 0);
  EXPECT_EQ(request->views, 1);
  EXPECT_EQ(request->learning_rate, std::nullopt);
  const auto plan = ParseFinetunePlan(
      R"({"backbone":")" + std::string(64, 'a') +
      R"(","classes":[1,2],"num_runs":2,"training_photos":10,"evaluation_photos":3,)"
      R"("evaluation_part":"test","stores":["a"]})");
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->held_out_photos, 0);
  EXPECT_EQ(ParseFinetuneRequest(R"({"backbone":3})").error().code, ErrorCode::kDataLoss);
}

TEST(FinetuneRequest, ChangesTheRecipe) {
  rpc::FinetuneRequest request;
  request.seed = 9;
  const auto plain = RecipeOf(request, false);
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->seed, 9);
  EXPECT_TRUE(plain->replay);

  request.recipe = "ndpipe";
  const auto published = RecipeOf(request, false).value();
  EXPECT_FALSE(published.replay);
  request.learning_rate = published.max_learning_rate / 2;
  request.epochs = 3;
  request.mixup = 0.5;
  request.patience = 4;
  request.weight_decay = 0;
  const auto changed = RecipeOf(request, false).value();
  EXPECT_DOUBLE_EQ(changed.min_learning_rate, published.min_learning_rate / 2);
  EXPECT_EQ(changed.epochs, 3);
  EXPECT_EQ(changed.mixup, 0.5);
  EXPECT_EQ(changed.patience, 4);
  EXPECT_EQ(changed.weight_decay, 0);

  request.recipe = "default";
  EXPECT_TRUE(RecipeOf(request, true)->replay);
  request.replay = false;
  EXPECT_FALSE(RecipeOf(request, true)->replay);
  EXPECT_EQ(RecipeOf({}, true)->name, "deep");
}

TEST(FinetuneRequest, ImpossibleOnesSayWhy) {
  const auto refusal = [](auto&& change) {
    rpc::FinetuneRequest request;
    change(request);
    const auto checked = CheckFinetuneRequest(request);
    EXPECT_FALSE(checked);
    return checked ? Error() : checked.error();
  };
  EXPECT_THAT(refusal([](auto& request) { request.delta_bits = 3; }).message, HasSubstr("3 bits"));
  EXPECT_THAT(refusal([](auto& request) { request.learning_rate = -1; }).message,
              HasSubstr("learning_rate"));
  EXPECT_THAT(refusal([](auto& request) { request.mixup = 1e9; }).message, HasSubstr("mixup"));
  EXPECT_THAT(refusal([](auto& request) { request.recipe = "soup"; }).message, HasSubstr("soup"));
  EXPECT_EQ(refusal([](auto& request) { request.patience = -1; }).code,
            ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace ndpipe::tuner
